"""Where xent is meant to differ from PyTorch: for each difference the smallest call that shows both."""
import ctypes
import math

import numpy as np
import torch
import torch.nn.functional as F

import library as xent

nan, inf = math.nan, math.inf


def theirs(x, targets, **options):
    """PyTorch's loss and gradient in float64."""
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    loss = F.cross_entropy(leaf, torch.tensor(targets, dtype=torch.float64 if isinstance(targets[0], list) else None),
                           **options)
    loss.sum().backward()
    return loss.tolist(), leaf.grad.tolist()


def ours(lib, x, targets, weights=None, smoothing=0.0, reduction=xent.MEAN):
    """The same from the library."""
    x = np.array(x, np.float32)
    soft = isinstance(targets[0], list)
    targets = np.array(targets, np.float32 if soft else np.int64)
    grad, loss = np.empty_like(x), np.empty(len(x) if reduction == xent.NONE else 1, np.float32)
    weights = None if weights is None else np.array(weights, np.float32)
    problem = xent.Problem(outer=x.shape[0], classes=x.shape[1], logits=x.ctypes.data, grad=grad.ctypes.data,
                           targets=targets.ctypes.data, target_type=xent.PROBABILITIES if soft else xent.I64,
                           class_weights=None if weights is None else weights.ctypes.data, loss=loss.ctypes.data,
                           label_smoothing=smoothing, reduction=reduction)
    error = lib.cross_entropy(problem)
    assert error is None, error
    return loss.tolist() if reduction == xent.NONE else loss.item(), grad.tolist()


def close(got, expected):
    return np.allclose(got, expected, rtol=1e-6, atol=0, equal_nan=True)


def ignored_rows(lib):
    x, targets, row = [[nan, 1, 2], [1, 2, 3]], [-100, 1], [0.0900305732, -0.7552715289, 0.665240956]
    (their_loss, their_grad), (loss, grad) = theirs(x, targets), ours(lib, x, targets)
    assert close(their_loss, 1.4076059644) and close(their_grad, [[nan] * 3, row]), (their_loss, their_grad)
    assert close(loss, 1.4076059644) and close(grad, [[0] * 3, row]), (loss, grad)


def masked_classes(lib):
    q, expected = [[0.0, 0.5, 0.5]], [[0, -0.2310585786, 0.2310585786]]
    (their_loss, their_grad), (loss, grad) = theirs([[-inf, 1, 2]], q), ours(lib, [[-inf, 1, 2]], q)
    assert math.isnan(their_loss) and close(their_grad, expected), (their_loss, their_grad)
    assert close(loss, 0.8132616875) and close(grad, expected), (loss, grad)
    # A class of weight 0 is nothing too, be it the target or part of the smoothing.
    w = [0.0, 1.0, 1.0]
    for targets, smoothing, exact in ([0], 0.0, 0.0), ([1], 0.1, 0.9 * 1.3132616875 + 0.1 / 3 * 1.626523375):
        their_loss, _ = theirs([[-inf, 1, 2]], targets, weight=torch.tensor(w, dtype=torch.float64),
                               label_smoothing=smoothing, reduction="sum")
        loss, _ = ours(lib, [[-inf, 1, 2]], targets, w, smoothing, xent.SUM)
        assert math.isnan(their_loss) and close(loss, exact), (targets, their_loss, loss, exact)
    # A masked label that has nothing of its own, but its part of the smoothing.
    their_loss, their_grad = theirs([[1, -inf]], [1], label_smoothing=1.0)
    loss, grad = ours(lib, [[1, -inf]], [1], smoothing=1.0)
    assert math.isnan(their_loss) and close(their_grad, [[0.5, -0.5]]), (their_loss, their_grad)
    assert loss == inf and close(grad, [[0.5, -0.5]]), (loss, grad)


def infinite_parts(lib):
    """Half of a masked class and minus a quarter of it; minus half and a share of the smoothing."""
    q, smoothing = [[-0.5, 0.5, 1.0]], 0.3
    their_loss, _ = theirs([[-inf, 1, 2]], q, label_smoothing=smoothing)
    loss, _ = ours(lib, [[-inf, 1, 2]], q, smoothing=smoothing)
    assert their_loss == -inf and math.isnan(loss), (their_loss, loss)
    their_loss, _ = theirs([[-inf, 1, 2]], [[0.25, 0.0, 0.0]])
    assert their_loss == inf, their_loss
    x, labels, q = np.array([-inf, 1, 2], np.float32), np.zeros(2, np.int64), np.array([0.5, -0.25], np.float32)
    loss = np.empty(1, np.float32)
    error = lib.cross_entropy(xent.Problem(outer=1, classes=3, logits=x.ctypes.data, target_type=xent.I64, labels=2,
                                           targets=labels.ctypes.data, probabilities=q.ctypes.data,
                                           loss=loss.ctypes.data))
    assert error is None and np.isnan(loss[0]), (error, loss)


def means_of_nothing(lib):
    w = [0.0, 0.0, 1.0]
    their_loss, their_grad = theirs([[3, 1, 2]], [1], weight=torch.tensor(w, dtype=torch.float64))
    loss, grad = ours(lib, [[3, 1, 2]], [1], w)
    assert math.isnan(their_loss) and close(their_grad, [[nan] * 3]), (their_loss, their_grad)
    assert math.isnan(loss) and grad == [[0] * 3], (loss, grad)
    their_loss, their_grad = theirs([[3, 1, 2]], [1], weight=torch.tensor(w, dtype=torch.float64), label_smoothing=0.1)
    loss, grad = ours(lib, [[3, 1, 2]], [1], w, 0.1)
    assert math.isnan(their_loss) and close(their_grad, [[nan] * 3]), (their_loss, their_grad)
    assert loss == inf and grad == [[0] * 3], (loss, grad)


def infinite_logits(lib):
    for x, t, loss, grad, theirs_is_nan in ((inf, 1.0, 0, 0, True), (inf, 0.0, inf, 1, False), (-inf, 0.0, 0, 0, True),
                                            (-inf, 1.0, inf, -1, True)):
        leaf = torch.tensor([x], dtype=torch.float64, requires_grad=True)
        their_loss = F.binary_cross_entropy_with_logits(leaf, torch.tensor([t], dtype=torch.float64))
        assert math.isnan(their_loss.item()) == theirs_is_nan, (x, t, their_loss)
        logit, target, value, slope = (np.array([v], np.float32) for v in (x, t, 77, 77))
        error = lib.bce(logit.ctypes.data, target.ctypes.data, 1, 1, value.ctypes.data, slope.ctypes.data, None)
        assert error is None and value[0] == loss and slope[0] == grad, (x, t, error, value, slope)


def counts(lib):
    """A number of rows that is no float."""
    rows = 2**24 + 3
    x, targets = np.zeros((rows, 1), np.float32), np.zeros(rows, np.uint8)
    _, total = torch.ops.aten.nll_loss_forward(torch.from_numpy(x), torch.zeros(rows, dtype=torch.int64), None, 1,
                                               -100)
    assert total.item() == 2**24 + 4, total
    loss, denominator = np.empty(1, np.float32), ctypes.c_double()
    error = lib.cross_entropy(xent.Problem(outer=rows, classes=1, logits=x.ctypes.data, target_type=xent.U8,
                                           targets=targets.ctypes.data, loss=loss.ctypes.data,
                                           denominator=ctypes.pointer(denominator)))
    assert error is None and denominator.value == rows, (error, denominator)


def narrow_labels(lib):
    """ignore_index -100 as an unsigned byte is 156."""
    x = np.linspace(0, 1, 200, dtype=np.float32)[None]
    labels = {kind: torch.tensor([156], dtype=kind) for kind in (torch.uint8, torch.int64)}
    loss = {kind: F.cross_entropy(torch.from_numpy(x), y, label_smoothing=0.5, reduction="sum").item()
            for kind, y in labels.items()}
    assert loss[torch.uint8] < 0.6 * loss[torch.int64], loss
    got = np.empty(1, np.float32)
    error = lib.cross_entropy(xent.Problem(outer=1, classes=200, logits=x.ctypes.data, target_type=xent.U8,
                                           targets=labels[torch.uint8].numpy().ctypes.data, label_smoothing=0.5,
                                           loss=got.ctypes.data))
    assert error is None and close(got[0], loss[torch.int64]), (error, got, loss)


NAMES = {"an ignored row's logits are not read": ignored_rows,
         "nothing of a masked class is nothing": masked_classes,
         "infinite parts of both signs are NaN": infinite_parts,
         "a mean of no weight has gradient 0": means_of_nothing,
         "an infinite logit has the limit's loss and gradient": infinite_logits,
         "rows are counted as integers": counts,
         "ignore_index is a number": narrow_labels}


def check(lib):
    """A line for each difference and kernel that is not as documented, on either side, and one for each that is."""
    for name, show in NAMES.items():
        try:
            for isa in lib.isas:
                lib.select(isa)
                show(lib)
            yield f"documented difference, both sides shown: {name}"
        except AssertionError as error:
            yield f"FAIL documented difference: {name}, {isa}: {error}"
