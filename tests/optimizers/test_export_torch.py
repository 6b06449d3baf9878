"""Sources that `export` prints for PyTorch, at work. `make test-backends` runs them: elsewhere they are skipped."""

import copy
import io
import pickle

import numpy as np
import pytest

from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.rule import UpdateRule
from tests.optimizers.exported import (
    ALL_OPTIONS,
    BAD_OPTIONS,
    HALVES,
    expected_half_walk,
    expected_walk,
    half_type,
    length_of,
    needed,
    source_of,
)
from tests.optimizers.walks import gradients, start, uniforms
from tests.rules import WORDS_2, random_rules


@pytest.fixture
def torch():
    """PyTorch on one thread."""
    module = needed('torch')
    module.set_num_threads(1)
    return module


def torch_walk(torch, optimizer, weights, dtype):
    trajectory = []
    for gradient in gradients(dtype=dtype):
        weights.grad = torch.tensor(gradient)
        optimizer.step()
        trajectory.append(weights.detach().numpy().copy())
    return np.array(trajectory)


@pytest.mark.parametrize('name', [*KNOWN_RULES, *WORDS_2])
def test_torch_walks_as_the_oracle(name, torch, monkeypatch):
    draws = iter(uniforms())
    monkeypatch.setattr(torch, 'rand_like', lambda x: torch.tensor(next(draws)))
    weights = torch.nn.Parameter(torch.tensor(start(dtype='float64')))
    optimizer = source_of(name, 'torch')([weights], *length_of(name), lr=0.0625)
    found = torch_walk(torch, optimizer, weights, 'float64')
    np.testing.assert_allclose(found, expected_walk(name), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('name', ['adam', 'rmsprop', 'powersign', 'adam_powersign'])
def test_torch_is_as_exact_in_float32(name, torch):
    weights = torch.nn.Parameter(torch.tensor(start()))
    found = torch_walk(torch, source_of(name, 'torch')([weights], lr=0.0625), weights, 'float32')
    np.testing.assert_allclose(found, expected_walk(name), rtol=1e-5, atol=1e-5)


def test_torch_at_the_edges(torch):
    w = torch.nn.Parameter(torch.zeros(5))
    w.grad = torch.tensor([0.0, -1e-39, 1e-30, -torch.inf, torch.nan])
    source_of('sign(g)', 'torch')([w], lr=1.0).step()
    np.testing.assert_array_equal(w.detach().numpy(), [0, 0, -1, 1, np.nan])


def test_torch_has_parameter_groups_and_state(torch):
    def make():
        torch.manual_seed(0)
        ws = [torch.nn.Parameter(torch.ones(3)) for _ in range(3)]
        groups = [{'params': ws[:1]}, {'params': ws[1:], 'lr': 0.5, 'beta_1': 0.0}]
        return ws, source_of('m + 1e-1*w', 'torch')(groups, lr=0.25)

    def step(ws, optimizer):
        for w, gradient in zip(ws, (1.0, 2.0, None), strict=True):
            w.grad = None if gradient is None else torch.full([3], gradient)
        optimizer.step()

    ws, optimizer = make()
    step(ws, optimizer)
    assert [w[0].item() for w in ws] == pytest.approx([1 - 0.25 * 1.1, 1 - 0.5 * 2.1, 1.0])
    assert [set(optimizer.state[w]) for w in ws] == [{'step', 'm'}, {'step', 'm'}, set()]

    others, restored = make()
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    with torch.no_grad():
        for w, other in zip(ws, others, strict=True):
            other.copy_(w)
    for pair in ((ws, optimizer), (others, restored)):
        step(*pair)
    for w, other in zip(ws, others, strict=True):
        assert torch.equal(w, other)


def test_torch_takes_a_closure_and_a_scheduler(torch):
    w = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = source_of('g', 'torch')([w], lr=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    def closure():
        optimizer.zero_grad()
        loss = (w**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert w.item() == 0.0
    scheduler.step()
    w.grad = torch.ones(1)
    assert optimizer.step() is None
    assert w.item() == -0.25


def test_torch_draws(torch):
    torch.manual_seed(0)
    w = torch.nn.Parameter(torch.zeros(10000))
    w.grad = torch.ones(10000)
    source_of('drop(g, 0.3) + noise', 'torch')([w], lr=1.0, noise_stddev=0.05).step()
    kept = w.detach().numpy() < -0.5
    assert abs(kept.mean() - 0.7) < 5 * (0.3 * 0.7 / 10000) ** 0.5
    assert w.detach().numpy()[~kept].std() == pytest.approx(0.05, rel=0.1)


# Many weights


SHAPES = ((3, 4), (5,), (), (0,), (2, 0), (300,), (40, 3), (2, 3, 4, 5))


def parameters(torch, seed=0, shapes=SHAPES, dtype=None):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]


def run(torch, optimizer, weights, steps=5, seed=1, update=None):
    """Steps with gradients of their own, then the weights."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for w in weights:
            w.grad = torch.randn(w.shape, generator=generator, dtype=w.dtype)
        (update or optimizer.step)()
    return [w.detach().clone() for w in weights]


def assert_equal(torch, found, expected):
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b), (a, b)


def one_by_one(torch, cls, seed=0, **arguments):
    """The weights after five steps, each parameter with an optimizer of its own."""
    weights = parameters(torch, seed)
    optimizers = [cls([w], **arguments) for w in weights]
    return run(torch, None, weights, update=lambda: [optimizer.step() for optimizer in optimizers])


@pytest.mark.parametrize('rule', ['adam', 'g', 'adam * exp(sign(m) * sign(g)) + 1e-2*w + gamma'])
@pytest.mark.parametrize('piece', [1, 7, 100, 2**17])
def test_torch_pieces_of_weights_make_no_difference(rule, piece, torch):
    """Empty ones, ones without a dimension, in 3 types of memory layout."""
    cls = source_of(rule, 'torch')
    expected = one_by_one(torch, cls, lr=0.1)
    cls.__init__.__globals__['PIECE'] = piece
    weights = parameters(torch)
    weights[0].data = weights[0].data.T.contiguous().T
    weights[-1].data = weights[-1].data.to(memory_format=torch.channels_last)
    found = run(torch, cls(weights, lr=0.1), weights)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    assert not torch.equal(found[0], parameters(torch)[0])


def test_torch_random_rules_walk_as_the_oracle(torch):
    """NaN and infinities included."""
    rules = [r for r in map(UpdateRule, random_rules(100, seed=21)) if not r.is_stochastic and r.reads_gradient]
    for rule in rules[:40]:
        weights = torch.nn.Parameter(torch.tensor(start(dtype='float64')))
        found = torch_walk(torch, source_of(rule, 'torch')([weights], lr=0.0625), weights, 'float64')
        with np.errstate(all='ignore'):
            expected = expected_walk(rule.infix)
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9, err_msg=str(rule))


def test_torch_steps_are_counted_for_each_weight(torch):
    """One that has its first gradient later corrects the bias of its averages by its own count."""
    weights = parameters(torch, shapes=[(3,), (3,)])
    optimizer = source_of('m', 'torch')(weights, lr=1.0)
    before = [w.detach().clone() for w in weights]
    weights[0].grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(weights[1], before[1])
    assert set(optimizer.state) == {weights[0]}
    weights[0].grad, weights[1].grad = torch.zeros(3), torch.full([3], 2.0)
    optimizer.step()
    moved = [(b - w.detach())[0].item() for b, w in zip(before, weights, strict=True)]
    assert moved == pytest.approx([1 + 0.09 / 0.19, 2.0])
    assert [optimizer.state[w]['step'].item() for w in weights] == [2, 1]


def test_torch_complex_weights_are_pairs_of_real_ones(torch):
    rule = 'adam * exp(sign(g) * sign(m)) + 1e-2*w'
    weights = [torch.nn.Parameter(torch.randn(n, dtype=torch.complex64)) for n in (3, 200)]
    pairs = [torch.nn.Parameter(torch.view_as_real(w.detach()).clone()) for w in weights]
    optimizer, other = source_of(rule, 'torch')(weights), source_of(rule, 'torch')(pairs)
    for _ in range(3):
        for w, pair in zip(weights, pairs, strict=True):
            w.grad = torch.randn_like(w)
            pair.grad = torch.view_as_real(w.grad).clone()
        optimizer.step()
        other.step()
        optimizer.load_state_dict(optimizer.state_dict())
    assert_equal(torch, [torch.view_as_real(w.detach()) for w in weights], pairs)


def test_torch_refuses_sparse_gradients_and_changes_nothing(torch):
    embedding = torch.nn.Embedding(5, 2, sparse=True)
    dense = torch.nn.Parameter(torch.ones(2))
    (embedding(torch.tensor([1, 3])).sum() + dense.sum()).backward()
    before = embedding.weight.detach().clone()
    optimizer = source_of('powersign', 'torch', 'PowerSign')([dense, embedding.weight], lr=1.0)
    with pytest.raises(RuntimeError, match='^PowerSign does not support sparse gradients$'):
        optimizer.step()
    assert torch.equal(embedding.weight, before)
    assert torch.equal(dense, torch.ones(2))


@pytest.mark.parametrize('where', ['constructor', 'group', 'added group'])
@pytest.mark.parametrize(('option', 'value'), [*BAD_OPTIONS, ('lr', -0.1), ('lr', float('nan'))])
def test_torch_refuses_what_is_out_of_range(option, value, where, torch):
    cls, (w, other) = source_of(ALL_OPTIONS, 'torch'), parameters(torch, shapes=[(1,), (1,)])
    optimizer, group = cls([other]), {'params': [w], option: value}
    make = {
        'constructor': lambda: cls([w], **{option: value}),
        'group': lambda: cls([group]),
        'added group': lambda: optimizer.add_param_group(group),
    }[where]
    with pytest.raises(ValueError, match=rf'^{option} = {value}: must be in \[0, (1|inf)\)$'):
        make()
    assert len(optimizer.param_groups) == 1


def test_torch_takes_a_rate_that_is_a_tensor(torch):
    cls, expected = source_of('powersign', 'torch'), []
    for rate in (0.25, torch.tensor(0.25), torch.tensor([0.25])):
        weights = parameters(torch)
        found = run(torch, cls(weights, lr=rate), weights)
        assert_equal(torch, found, expected or found)
        expected = found
    with pytest.raises(ValueError, match='lr = '):
        cls(weights, lr=torch.tensor([0.25, 0.5]))


# Types


@pytest.mark.parametrize('dtype', HALVES)
@pytest.mark.parametrize('rule', ['adam', 'rmsprop', 'powersign', 'log(g) * sign(gamma)'])
def test_torch_16_bits_are_updated_by_float32_arithmetic(rule, dtype, torch):
    weights = torch.nn.Parameter(torch.tensor(start()).to(getattr(torch, dtype)))
    optimizer, trajectory = source_of(rule, 'torch')([weights], lr=0.0625), []
    for gradient in gradients():
        weights.grad = torch.tensor(gradient).to(weights.dtype)
        optimizer.step()
        trajectory.append(weights.detach().float().numpy().copy())
    _, unit = half_type(dtype)
    np.testing.assert_allclose(trajectory, expected_half_walk(rule, dtype), rtol=2 * unit, atol=unit)
    slots = [value for name, value in optimizer.state[weights].items() if name != 'step']
    assert {slot.dtype for slot in slots} == {torch.float32}


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'complex64', *HALVES])
@pytest.mark.parametrize('way', ['state_dict', 'deepcopy', 'pickle', 'torch.save'])
def test_torch_goes_on_bit_for_bit(dtype, way, torch):
    def through(value):
        if way == 'torch.save':
            file = io.BytesIO()
            torch.save(value, file)
            file.seek(0)
            return torch.load(file)
        return pickle.loads(pickle.dumps(value)) if way == 'pickle' else copy.deepcopy(value)

    cls = source_of('adam + gamma + 1e-2*w', 'torch')
    weights = parameters(torch, dtype=getattr(torch, dtype))
    optimizer = cls([{'params': weights[:2]}, {'params': weights[2:], 'lr': 0.5, 'beta_2': 0.5}], lr=0.25)
    run(torch, optimizer, weights, steps=3)
    if way == 'deepcopy':
        others, restored = copy.deepcopy((weights, optimizer))
        others = [w for group in restored.param_groups for w in group['params']]
    else:
        others = [torch.nn.Parameter(w.detach().clone()) for w in weights]
        restored = cls([{'params': others[:2]}, {'params': others[2:]}])
        restored.load_state_dict(through(optimizer.state_dict()))
    expected = run(torch, optimizer, weights, seed=7)
    assert_equal(torch, run(torch, restored, others, seed=7), expected)
    assert [group['lr'] for group in restored.param_groups] == [0.25, 0.5]


def test_torch_a_state_of_16_bits_serves_wider_weights(torch):
    """The averages are of the type that the weights ask for, not of that of the weights that were saved."""
    cls, weights = source_of('adam', 'torch'), parameters(torch, dtype=torch.bfloat16)
    optimizer = cls(weights)
    run(torch, optimizer, weights)
    wider = parameters(torch, dtype=torch.float64)
    restored = cls(wider)
    restored.load_state_dict(optimizer.state_dict())
    assert {restored.state[w][slot].dtype for w in wider for slot in 'mv'} == {torch.float64}
    run(torch, restored, wider)


# Compiled


@pytest.mark.parametrize('rule', ['adam', 'powersign', 'g + 1e-2*w'])
@pytest.mark.parametrize('rate', ['number', 'tensor'])
def test_torch_a_compiled_step_is_compiled_twice_at_most(rule, rate, torch):
    """Once to make the state, and once for all steps that find it."""
    from torch._dynamo.testing import CompileCounter

    def make():
        weights = parameters(torch, shapes=[(3, 4), (), (0,), (300,)])
        return weights, source_of(rule, 'torch')(weights, lr=torch.tensor(0.1) if rate == 'tensor' else 0.1)

    torch._dynamo.reset()
    counter = CompileCounter()
    weights, optimizer = make()
    found = run(torch, optimizer, weights, update=torch.compile(optimizer.step, backend=counter, fullgraph=True))
    assert counter.frame_count == (1 if rule == 'g + 1e-2*w' else 2)
    weights, optimizer = make()
    for a, b in zip(found, run(torch, optimizer, weights), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('dtype', ['bfloat16', 'complex64'])
def test_torch_compiled_by_aot_eager(dtype, torch):
    def make():
        weights = parameters(torch, shapes=[(3, 4), (300,)], dtype=getattr(torch, dtype))
        return weights, source_of('powersign', 'torch')(weights, lr=0.1)

    torch._dynamo.reset()
    weights, optimizer = make()
    found = run(torch, optimizer, weights, update=torch.compile(optimizer.step, backend='aot_eager'))
    weights, optimizer = make()
    for a, b in zip(found, run(torch, optimizer, weights), strict=True):
        torch.testing.assert_close(a, b)


def test_torch_exp_of_a_sign_is_exp(torch):
    rule = 'exp(sign(g)) + exp(-sign(m)) + exp(sign(g) * sign(m))'
    w = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
    w.grad = torch.tensor([2.0, -3.0, 0.0, torch.nan], dtype=torch.float64)
    source_of(rule, 'torch')([w], lr=1.0).step()
    expected = [np.e + 1 / np.e + np.e, 1 / np.e + np.e + np.e, 3.0, np.nan]
    np.testing.assert_allclose(-w.detach().numpy(), expected, rtol=1e-14)
