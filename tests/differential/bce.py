"""A random problem of xent_bce_f32, and what PyTorch makes of it in float64."""
import ctypes

import numpy as np
import torch
import torch.nn.functional as F

import library as xent
from arrays import Array, place
from softmax import REDUCTIONS, differs, ulp


def term(coefficient, value):
    """A coefficient of 0 counts nothing, be the value infinite."""
    with np.errstate(invalid="ignore"):
        return np.where(coefficient == 0, 0, coefficient * value)


class Bce:
    def __init__(self, rng, has_f64, kind=None):
        self.rng, self.tags, self.exceptions = rng, {"binary cross entropy"}, set()
        numpy = np.random.Generator(np.random.PCG64(rng.getrandbits(64)))
        self.rows, self.classes = rng.choice((1, rng.randint(1, 30))), rng.choice((1, rng.randint(1, 60)))
        if rng.random() < 0.05:
            self.rows, self.classes = rng.randint(1, 3), rng.randint(6000, 20000)
        if rng.random() < 0.03:
            self.rows = 0
        shape = (self.rows, self.classes, 1)
        logits = numpy.standard_normal(shape) * rng.choice((0.1, 1, 5, 40))
        targets = numpy.random(shape)
        how = rng.choice(("hard", "soft", "mixed"))
        if how != "soft":
            hard = numpy.random(shape) < (1 if how == "hard" else 0.5)
            targets[hard] = np.rint(targets[hard])
        self.tags.add(f"bce {how} targets")
        self.infinite = rng.random() < 0.15 and self.rows > 0
        if self.infinite:
            logits[numpy.random(shape) < 0.1] = np.inf
            logits[numpy.random(shape) < 0.1] = -np.inf
            self.tags.add("bce infinite logits")

        def matrix(values):
            layout = rng.choice(("packed", "padded"))
            pad = rng.randint(1, 9) if layout == "padded" else 0
            return place_rows(rng, values, pad)
        self.logits, self.targets = matrix(logits), matrix(targets)
        self.in_place, self.grad = rng.random() < 0.3, None
        self.has_grad = self.in_place or rng.random() < 0.8
        if self.has_grad and not self.in_place:
            self.grad = matrix(np.zeros(shape))
        self.reduction = rng.choice((xent.MEAN, xent.SUM, xent.NONE))
        self.tags.add(f"bce {REDUCTIONS[self.reduction]}")
        self.weights = self.pos_weight = None
        self.weight_kind = rng.choice((None, None, "one", "[classes]", "[rows]", "[rows][classes]"))
        if self.weight_kind:
            extents = {"one": (1, 1, 1), "[classes]": (1, self.classes, 1), "[rows]": (max(self.rows, 1), 1, 1),
                       "[rows][classes]": (max(self.rows, 1), self.classes, 1)}[self.weight_kind]
            values = np.exp(numpy.standard_normal(extents))
            values[numpy.random(extents) < 0.1] = 0
            self.weights = place(rng, values, np.float32)
            self.tags.add(f"bce weights {self.weight_kind}")
        if rng.random() < 0.4:
            values = np.exp(numpy.standard_normal((1, self.classes, 1)))
            self.pos_weight = place(rng, values, np.float32)
            self.tags.add("bce pos_weight")

    def expect(self):
        x, t = (a.values.astype(np.float64) for a in (self.logits, self.targets))
        w = self.weights.values.astype(np.float64) if self.weights else np.ones((1, 1, 1))
        p = self.pos_weight.values.astype(np.float64) if self.pos_weight else np.ones((1, 1, 1))
        w = w[:max(self.rows, 1)] * np.ones_like(x)
        positive, negative = w * p * t, w * (1 - t)
        with np.errstate(over="ignore"):
            loss = term(positive, np.logaddexp(0, -x)) + term(negative, np.logaddexp(0, x))
            a, b = term(negative, 1 / (1 + np.exp(-x))), term(positive, 1 / (1 + np.exp(x)))
        grad = a - b
        leaf = torch.from_numpy(x.copy()).requires_grad_(True)
        theirs = F.binary_cross_entropy_with_logits(
            leaf, torch.from_numpy(t.copy()), weight=torch.from_numpy(w), reduction="none",
            pos_weight=torch.from_numpy(p.copy()) if self.pos_weight else None)
        if self.rows:
            F.binary_cross_entropy_with_logits(
                leaf, torch.from_numpy(t.copy()), weight=torch.from_numpy(w), reduction="sum",
                pos_weight=torch.from_numpy(p.copy()) if self.pos_weight else None).backward()
        self._agree(theirs.detach().numpy(), loss, x, w, p)
        self._agree(leaf.grad.numpy() if self.rows else grad, grad, x, w, p)
        divisor = x.size if self.reduction == xent.MEAN else 1
        self.loss, self.loss_bound = loss, 2 * ulp(loss, np.float32) + 2.0**-48 * np.abs(loss)
        self.reduced = float(loss.sum()) / divisor if divisor else np.nan
        self.reduced_bound = 2 * float(ulp(np.float64(self.reduced), np.float32)) if self.rows else 0
        self.exact_grad = grad / max(divisor, 1)
        close = np.abs(a - b) < 2.0**-26 * (a + b)
        self.grad_bound = (np.where(close, 0.5, 3) * ulp(self.exact_grad, np.float32) +
                           2.0**-48 * (a + b) / max(divisor, 1))

    def _agree(self, theirs, ours, x, w, p):
        """PyTorch and the formula of the header, but for the logits where PyTorch has NaN."""
        strange = np.isnan(theirs) & ~np.isnan(ours)
        if strange.any():
            assert np.isinf(x[strange]).all()
            self.exceptions.add("an infinite logit has the limit's loss and gradient")
        magnitude = np.where(np.isfinite(x), np.abs(x), 0) + 1
        with np.errstate(invalid="ignore"):
            same = (theirs == ours) | (np.abs(theirs - ours) <= 2.0**-48 * magnitude * w * (p + 1))
        assert (same | strange).all(), "PyTorch has another formula"

    def run(self, lib, executor=None):
        logits, targets, grad = self.logits.copy(), self.targets.copy(), self.grad and self.grad.copy()
        out = logits if self.in_place else grad
        count = self.rows * self.classes if self.reduction == xent.NONE else 1
        loss = place(self.rng, np.full((1, 1, count), 77.0), np.float32)
        options = xent.BceOptions(reduction=self.reduction, logits_stride=logits.element_strides[0],
                                  targets_stride=targets.element_strides[0])
        if out is not None:
            options.grad_stride = out.element_strides[0]
        if self.weights:
            options.weights = self.weights.address
            options.weight_row_stride, options.weight_class_stride = {
                "one": (0, 0), "[classes]": (0, 1), "[rows]": (1, 0),
                "[rows][classes]": (self.classes, 1)}[self.weight_kind]
        if self.pos_weight:
            options.pos_weight = self.pos_weight.address
        if executor:
            options.executor = ctypes.pointer(executor)
        error = lib.bce(logits.address, targets.address, self.rows, self.classes, loss.address,
                        out.address if out is not None else None, ctypes.byref(options))
        if error:
            return error
        if bytes(targets.buffer) != bytes(self.targets.buffer):
            return "the targets were written to"
        if not self.in_place and bytes(logits.buffer) != bytes(self.logits.buffer):
            return "the logits were written to"
        if out is not None and not out.is_untouched_around(self.logits if self.in_place else self.grad):
            return "something between the gradient's elements was written to"
        return {"loss": loss.values.copy(), "grad": out.values.copy() if out is not None else None}

    def complaint(self, got):
        if isinstance(got, str):
            return got
        if self.reduction == xent.NONE:
            complaint = differs("loss", got["loss"].reshape(self.loss.shape), self.loss, self.loss_bound)
        else:
            complaint = differs("loss", got["loss"].reshape(1), np.array([self.reduced]), self.reduced_bound)
        if complaint or got["grad"] is None:
            return complaint
        return differs("gradient", got["grad"], self.exact_grad, self.grad_bound)


def place_rows(rng, values, pad):
    """Rows of neighbours, pad elements between them."""
    rows, classes, _ = values.shape
    packed = place(rng, np.zeros((max(rows, 1), classes + pad, 1)), np.float32)
    packed.buffer[...] = 0xA5
    return Array(values, np.float32, packed.buffer, packed.offset, [classes + pad, 1, 1], pad == 0)
