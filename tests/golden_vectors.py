#!/usr/bin/env python3
"""Write tests/golden_vectors.h: what PyTorch, in float64, makes of every corner of the criterion, on inputs that are
floats. The tests that read it need no PyTorch. With --check it is compared with what is there.

    python3 -m venv venv && venv/bin/pip install torch==2.13.0 numpy && venv/bin/python tests/golden_vectors.py

Where xent is documented to differ (PyTorch has NaN for 0 times infinity, and for gradients of ignored rows and of means of
no weight), the case says so by the name of the difference, PyTorch is checked to be as described, and the committed
number is that of the definition."""
import math
import pathlib
import random
import re
import sys

import torch
import torch.nn.functional as F

OUTPUT = pathlib.Path(__file__).resolve().parent / "golden_vectors.h"
nan, inf = math.nan, math.inf
rng = random.Random(4)
IGNORED, MASKED, NO_WEIGHT, INFINITE = ("ignored rows", "masked classes", "means of no weight", "infinite logits")


def draw(count, low, high, steps=64):
    return [round(rng.uniform(low, high) * steps) / steps for _ in range(count)]


def logits(outer, classes, inner=1, low=-6, high=6):
    return draw(outer * classes * inner, low, high)


def tensor(values, *shape):
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


class Case:
    """One problem under every reduction. shape: as PyTorch has it, (C), (N,C) or (N,C,d1..)."""

    def __init__(self, name, shape, x, index=None, q=None, weights=None, smoothing=0.0, ignore_index=-100, rows=None,
                 labels=None, normalizer=0.0, difference=None):
        self.name, self.shape, self.x, self.index, self.q = name, shape, x, index, q
        self.weights, self.smoothing, self.ignore_index = weights, smoothing, ignore_index
        self.row_weights, self.labels, self.normalizer, self.difference = rows, labels, normalizer, difference
        self.classes = shape[0] if len(shape) == 1 else shape[1]
        self.outer = 1 if len(shape) == 1 else shape[0]
        self.inner = math.prod(shape[2:])
        self.rows = self.outer * self.inner
        self.dloss = draw(self.rows, -2, 2)
        self.per_row = shape[:1] + shape[2:] if len(shape) > 1 else ()
        self.compute()

    def target(self):
        if self.labels:
            # Several labels a row, [outer][labels][inner] with probabilities of the same shape, made dense.
            index, probabilities = self.labels
            count = len(index) // self.rows
            dense = torch.zeros(self.outer, self.classes, self.inner, dtype=torch.float64)
            for i in range(self.outer):
                for k in range(count):
                    for p in range(self.inner):
                        at = (i * count + k) * self.inner + p
                        if index[at] != self.ignore_index:
                            dense[i, index[at], p] += probabilities[at]
            return dense.reshape(self.shape)
        if self.q is not None:
            return tensor(self.q, *self.shape)
        return torch.tensor(self.index, dtype=torch.int64).reshape(self.per_row)

    def kept(self):
        """Whether each row counts, and its share of a mean's denominator."""
        kept, denominator = [], 0
        for row in range(self.rows):
            r = self.row_weights[row] if self.row_weights else 1
            if self.labels:
                index, count = self.labels[0], len(self.labels[0]) // self.rows
                i, p = divmod(row, self.inner)
                keep = any(index[(i * count + k) * self.inner + p] != self.ignore_index for k in range(count))
            else:
                keep = self.index is None or self.index[row] != self.ignore_index
            keep = keep and r != 0
            w = self.weights[self.index[row]] if keep and self.index and self.weights else 1
            denominator += r * w if keep else 0
            kept.append(keep)
        return kept, denominator

    def torch_run(self, reduction, dloss=None):
        x = tensor(self.x, *self.shape).requires_grad_(True)
        options = {"label_smoothing": self.smoothing}
        if self.weights:
            options["weight"] = tensor(self.weights, self.classes)
        if self.index is not None:
            options["ignore_index"] = self.ignore_index
        own = not self.row_weights and not self.normalizer and not self.labels
        if own or reduction == "none" and not self.row_weights:
            loss = F.cross_entropy(x, self.target(), reduction=reduction, **options)
            if self.labels:
                loss = torch.where(torch.tensor(self.kept()[0]).reshape(self.per_row), loss, 0.0)
        else:
            # PyTorch's losses, put together as the header says.
            loss = F.cross_entropy(x, self.target(), reduction="none", **options)
            kept, denominator = self.kept()
            r = tensor(self.row_weights or [1.0] * self.rows, *self.per_row)
            loss = torch.where(torch.tensor(kept).reshape(self.per_row), loss * r, 0.0)
            if reduction != "none":
                loss = loss.sum() / ((self.normalizer or denominator) if reduction == "mean" else 1)
        if self.rows:
            loss.backward(tensor(dloss, *self.per_row) if dloss else torch.ones_like(loss))
        grad = x.grad if self.rows else x
        return loss.detach().reshape(-1).tolist(), grad.detach().reshape(-1).tolist()

    def compute(self):
        self.kept_rows, self.denominator = self.kept()
        self.none, self.grad_none = self.torch_run("none", self.dloss if self.rows else None)
        self.sum, self.grad_sum = self.torch_run("sum")
        self.mean, self.grad_mean = self.torch_run("mean")
        if self.difference:
            self.amend()

    def amend(self):
        """Puts the documented numbers where PyTorch has NaN."""
        if self.difference == IGNORED:
            assert any(math.isnan(g) for g in self.grad_mean), self.name
            for grad in self.grad_none, self.grad_sum, self.grad_mean:
                for at in range(len(grad)):
                    row = at // (self.classes * self.inner) * self.inner + at % self.inner
                    if not self.kept_rows[row]:
                        assert math.isnan(grad[at]), self.name
                        grad[at] = 0.0
        elif self.difference == MASKED:
            assert any(math.isnan(loss) for loss in self.none), self.name
            log_p = torch.log_softmax(tensor(self.x, *self.shape), 0 if len(self.shape) == 1 else 1)
            log_p = log_p.reshape(self.outer, self.classes, self.inner)
            w, a = self.weights or [1.0] * self.classes, self.smoothing
            if self.index is None:
                q = self.target().reshape(self.outer, self.classes, self.inner)
            for row in range(self.rows):
                i, p = divmod(row, self.inner)
                if not math.isnan(self.none[row]):
                    continue
                terms = []
                for j in range(self.classes):
                    share = q[i, j, p].item() if self.index is None else float(self.index[row] == j)
                    t = w[j] * (a / self.classes + (1 - a) * share)
                    terms.append(-t * log_p[i, j, p].item() if t else 0.0)
                self.none[row] = sum(terms)
            self.sum = [sum(self.none)]
            self.mean = [self.sum[0] / self.denominator]
        elif self.difference == NO_WEIGHT:
            assert self.denominator == 0 and any(math.isnan(g) for g in self.grad_mean), self.name
            self.grad_mean = [0.0] * len(self.grad_mean)


class Bce:
    def __init__(self, name, rows, classes, x, t, weights=None, strides=(0, 0), pos_weight=None, difference=None):
        self.name, self.rows, self.classes, self.x, self.t = name, rows, classes, x, t
        self.weights, self.strides, self.pos_weight, self.difference = weights, strides, pos_weight, difference
        w = [(weights[i * strides[0] + j * strides[1]] if weights else 1) for i in range(rows) for j in range(classes)]
        results = []
        for reduction in "none", "sum", "mean":
            leaf = tensor(x, rows, classes).requires_grad_(True)
            loss = F.binary_cross_entropy_with_logits(
                leaf, tensor(t, rows, classes), weight=tensor(w, rows, classes), reduction=reduction,
                pos_weight=tensor(pos_weight, classes) if pos_weight else None)
            if rows:
                loss.backward(torch.ones_like(loss))
            results.append((loss.detach().reshape(-1).tolist(), (leaf.grad if rows else leaf).reshape(-1).tolist()))
        (self.none, self.grad_sum), (self.sum, _), (self.mean, self.grad_mean) = results
        if difference:
            # Limits: whatever PyTorch has, it is NaN or this.
            for at in range(rows * classes):
                if not math.isinf(x[at]):
                    continue
                assert t[at] in (0, 1), name
                right = (x[at] > 0) == (t[at] == 1)
                loss, grad = (0.0, 0.0) if right else (inf, w[at] if t[at] == 0 else -w[at] *
                                                       (pos_weight[at % classes] if pos_weight else 1))
                assert math.isnan(self.none[at]) or self.none[at] == loss, name
                self.none[at], self.grad_sum[at], self.grad_mean[at] = loss, grad, grad / (rows * classes)
            assert any(math.isnan(v) for v in self.sum), name
            self.sum, self.mean = [sum(self.none)], [sum(self.none) / (rows * classes)]


def index_cases():
    w, w0 = [0.5, 2.0, 1.0, 0.25, 3.0], [0.5, 0.0, 1.0, 0.25, 0.0]
    y, some = [3, 0, 4, 1, 2, 0], [3, -100, 4, 1, -100, 0]

    def x(outer=6, inner=1):
        return logits(outer, 5, inner)
    yield Case("a single row", (5,), x(1), [2])
    yield Case("a single row, weights, smoothing", (5,), x(1), [2], weights=w, smoothing=0.25)
    yield Case("rows", (6, 5), x(), y)
    yield Case("one class", (3, 1), [1.0, -2.0, 3.0], [0, 0, 0])
    yield Case("one class, smoothing, weights", (3, 1), [1.0, -2.0, 3.0], [0, -100, 0], weights=[2.0], smoothing=0.5)
    yield Case("ignore_index outside", (6, 5), x(), some)
    yield Case("ignore_index inside", (6, 5), x(), y, ignore_index=0)
    yield Case("ignore_index 255", (6, 5), x(), [3, 255, 4, 255, 2, 0], ignore_index=255)
    yield Case("weights", (6, 5), x(), y, weights=w)
    yield Case("weights of 0", (6, 5), x(), y, weights=w0)
    yield Case("weights, ignored", (6, 5), x(), some, weights=w)
    yield Case("weights, ignored inside", (6, 5), x(), y, weights=w, ignore_index=0)
    yield Case("smoothing", (6, 5), x(), y, smoothing=0.125)
    yield Case("smoothing of 1", (6, 5), x(), y, smoothing=1.0)
    yield Case("smoothing, ignored", (6, 5), x(), some, smoothing=0.125)
    yield Case("smoothing, weights", (6, 5), x(), y, weights=w, smoothing=0.125)
    yield Case("smoothing, weights of 0", (6, 5), x(), y, weights=w0, smoothing=0.125)
    yield Case("smoothing, weights, ignored", (6, 5), x(), some, weights=w, smoothing=0.5)
    yield Case("smoothing, weights, ignored inside", (6, 5), x(), y, weights=w, smoothing=0.5, ignore_index=4)
    for a in 0.0, 0.125:
        yield Case(f"all ignored, smoothing {a}", (2, 5), x(2), [-100, -100], smoothing=a)
        yield Case(f"all ignored, weights, smoothing {a}", (2, 5), x(2), [-100, -100], weights=w, smoothing=a)
        yield Case(f"no rows, smoothing {a}", (0, 5), [], [], smoothing=a)
    yield Case("no rows, weights", (0, 5), [], [], weights=w)
    yield Case("d1", (2, 5, 3), x(2, 3), y)
    yield Case("d1, weights, smoothing, ignored", (2, 5, 3), x(2, 3), some, weights=w, smoothing=0.125)
    yield Case("d1, d2", (2, 5, 2, 2), x(2, 4), [3, 0, 4, 1, 2, 0, 1, 1])
    yield Case("d1, d2, weights, smoothing, ignored inside", (2, 5, 2, 2), x(2, 4), [3, 0, 4, 1, 2, 0, 1, 1],
               weights=w, smoothing=0.5, ignore_index=1)
    yield Case("(2,4,2), a worked example", (2, 4, 2),
               [4, 4, 3, 3, 2, 2, 2, 20, 20, 20, 2, 2, 3, 3, 10, 10], [3, 3, 0, 0])
    yield Case("a worked example", (2, 4), [4, 3, 2, 10, 20, 2, 3, 4], [3, 3])
    yield Case("a loss far below 1", (2, 4), [4, 3, 2, 20, 4, 3, 2, 44], [3, 3])
    yield Case("an offset of 10000", (3, 5), [v + 10000 for v in logits(3, 5)], [1, 4, 2])
    yield Case("an offset of -10000, smoothing", (3, 5), [v - 10000 for v in logits(3, 5)], [1, 4, 2], smoothing=0.125)
    yield Case("logits far apart", (4, 5), logits(4, 5, 1, -300, 300), [1, 4, 2, 0])
    yield Case("many classes", (2, 70), logits(2, 70), [69, 31])
    yield Case("many classes, smoothing, weights", (1, 70), logits(1, 70), [33], weights=draw(70, 0, 2),
               smoothing=0.125)


def masked_cases():
    w = [0.5, 2.0, 1.0, 0.25]
    x = [-inf, 1, 2, 3, 1, -inf, -inf, 0.5, 2, 1, 0, -1, -inf, -inf, -inf, 2]
    yield Case("masked classes", (4, 4), x, [1, 0, 2, 3])
    yield Case("masked targets", (4, 4), x, [0, 0, 2, 1])
    yield Case("masked targets, weights", (4, 4), x, [0, 2, 2, 1], weights=w)
    yield Case("masked classes, smoothing", (4, 4), x, [1, 0, 2, 3], smoothing=0.125)
    yield Case("masked targets, smoothing, weights", (4, 4), x, [0, 2, 2, 3], weights=w, smoothing=0.125)
    yield Case("rows without a sum", (5, 4), [nan, 1, 2, 3, -inf, -inf, -inf, -inf, inf, 1, 2, 3, 1, 2, inf, 3, 0, 1, 2,
                                              3], [0, 1, 0, 1, 2])
    yield Case("masked targets of weight 0", (4, 4), x, [0, 2, 2, 3], weights=[0.0, 2.0, 1.0, 0.25], difference=MASKED)
    yield Case("masked classes of weight 0, smoothing", (2, 4), [-inf, 1, 2, 3, -inf, 1, 0.5, -1], [1, 0],
               weights=[0.0, 2.0, 1.0, 0.25], smoothing=0.125, difference=MASKED)
    yield Case("ignored rows of anything", (4, 4), [nan, 1, 2, 3, -inf, -inf, -inf, -inf, 0, 1, 2, 3, inf, 1, 2, 3],
               [-100, -100, 1, -100], difference=IGNORED)
    yield Case("ignored rows of anything, smoothing, weights", (3, 4), [nan, 1, 2, 3, 0, 1, 2, 3, inf, 1, 2, 3],
               [-100, 1, -100], weights=w, smoothing=0.125, difference=IGNORED)
    yield Case("a mean of no weight", (2, 4), logits(2, 4), [0, 0], weights=[0.0, 2.0, 1.0, 0.25],
               difference=NO_WEIGHT)


def probability_cases():
    w, w0 = [0.5, 2.0, 1.0, 0.25, 3.0], [0.5, 0.0, 1.0, 0.25, 0.0]

    def x(outer=4, inner=1):
        return logits(outer, 5, inner)

    def q(count=20):
        return draw(count, 0, 0.5)
    normalised = [0.25, 0.25, 0.5, 0, 0, 0.125, 0.125, 0.25, 0.25, 0.25]
    yield Case("probabilities of a single row", (5,), x(1), q=q(5))
    yield Case("normalised probabilities", (2, 5), x(2), q=normalised)
    yield Case("probabilities", (4, 5), x(), q=q())
    yield Case("one-hot probabilities", (2, 5), x(2), q=[0, 0, 0, 1, 0, 1, 0, 0, 0, 0])
    yield Case("rows of probability 0", (2, 5), x(2), q=[0] * 5 + normalised[:5])
    yield Case("negative probabilities", (2, 5), x(2), q=draw(10, -0.5, 1))
    yield Case("probabilities, weights", (4, 5), x(), q=q(), weights=w)
    yield Case("probabilities, weights of 0", (4, 5), x(), q=q(), weights=w0)
    yield Case("probabilities, smoothing", (4, 5), x(), q=q(), smoothing=0.125)
    yield Case("probabilities, smoothing, weights", (4, 5), x(), q=q(), weights=w, smoothing=0.5)
    yield Case("probabilities, smoothing of 1, weights of 0", (4, 5), x(), q=q(), weights=w0, smoothing=1.0)
    yield Case("probabilities of no rows", (0, 5), [], q=[])
    yield Case("probabilities, d1", (2, 5, 3), x(2, 3), q=q(30), weights=w)
    yield Case("probabilities, d1, d2", (1, 5, 2, 2), x(1, 4), q=q(20), weights=w, smoothing=0.125)
    yield Case("probabilities, masked classes", (2, 4), [-inf, 1, 2, 3, 1, -inf, -inf, 0.5],
               q=[0, 0.5, 0.25, 0.25, 1, 0, 0, 0], difference=MASKED)
    yield Case("probabilities of masked classes", (2, 4), [-inf, 1, 2, 3, 1, -inf, 2, 0.5],
               q=[0.5, 0.5, 0.25, 0.25, 1, 0.25, 0.5, 1])
    yield Case("probabilities, masked classes of weight 0, smoothing", (2, 4), [-inf, 1, 2, 3, -inf, 2, 2, 0.5],
               q=[0.5, 0.5, 0.25, 0.25, 1, 0.25, 0.5, 1], weights=[0.0, 1, 2, 0.5], smoothing=0.25, difference=MASKED)


def other_cases():
    w = [0.5, 2.0, 1.0, 0.25, 3.0]
    rows = [0.5, 0.0, 2.0, 1.5, 1.0, 0.25]
    y = [3, 0, 4, 1, -100, 0]
    yield Case("row weights", (6, 5), logits(6, 5), y, rows=rows)
    yield Case("row weights, weights, smoothing", (6, 5), logits(6, 5), y, rows=rows, weights=w, smoothing=0.125)
    yield Case("row weights, probabilities", (2, 5, 3), logits(2, 5, 3), q=draw(30, 0, 0.5), rows=rows, weights=w)
    yield Case("normalizer", (6, 5), logits(6, 5), y, normalizer=1000.0)
    yield Case("normalizer, row weights, weights", (6, 5), logits(6, 5), y, normalizer=7.5, rows=rows, weights=w)
    yield Case("several labels", (3, 5), logits(3, 5), labels=([0, 3, 2, 2, 4, 1], [0.75, 0.25, 0.5, 0.5, 1.0, 1.0]))
    yield Case("several labels, some left out", (4, 5), logits(4, 5),
               labels=([0, -100, -100, -100, 4, 1, -100, 2], [0.75, 0.25, 0.5, 0.5, 0.125, 0.5, 1.0, 0.25]))
    yield Case("several labels, weights, smoothing, d1", (2, 5, 2), logits(2, 5, 2), weights=w, smoothing=0.125,
               labels=([0, 3, 2, 2, 4, 1, 0, 4], [0.75, 0.25, 0.5, 0.5, 0.25, 1.0, 0.5, 0.0]))


def bce_cases():
    def x(count, spread=6):
        return draw(count, -spread, spread)

    def hard(count):
        return [float(rng.random() < 0.5) for _ in range(count)]

    def soft(count):
        return draw(count, 0, 1)
    yield Bce("hard targets", 4, 3, x(12), hard(12))
    yield Bce("soft targets", 4, 3, x(12), soft(12))
    yield Bce("one element", 1, 1, [0.5], [0.25])
    yield Bce("no rows", 0, 3, [], [])
    yield Bce("large logits", 4, 3, x(12, 90), hard(12))
    yield Bce("weights of classes", 4, 3, x(12), soft(12), [0.5, 0.0, 2.0], (0, 1))
    yield Bce("weights of rows", 4, 3, x(12), soft(12), [0.5, 0.0, 2.0, 1.5], (1, 0))
    yield Bce("weights of elements", 4, 3, x(12), soft(12), draw(12, 0, 3), (3, 1))
    yield Bce("one weight", 4, 3, x(12), hard(12), [0.75])
    yield Bce("pos_weight", 4, 3, x(12), hard(12), pos_weight=[0.5, 4.0, 0.0])
    yield Bce("pos_weight, soft targets", 4, 3, x(12), soft(12), pos_weight=[0.5, 4.0, 1.0])
    yield Bce("pos_weight, weights", 4, 3, x(12), soft(12), draw(12, 0, 3), (3, 1), [0.5, 4.0, 0.0])
    yield Bce("targets beyond 0 and 1", 2, 3, x(6), [-0.5, 1.5, 2.0, 0.5, -1.0, 1.0])
    yield Bce("infinite logits", 2, 4, [inf, inf, -inf, -inf, 1, inf, -inf, 0.5], [1, 0, 0, 1, 1, 1, 0, 0],
              difference=INFINITE)
    yield Bce("infinite logits, pos_weight, weights", 2, 2, [inf, -inf, -inf, inf], [1, 0, 1, 0], [0.5, 2.0], (0, 1),
              [4.0, 0.5], difference=INFINITE)


# C.

def number(value, suffix):
    if math.isnan(value):
        return "NAN" if suffix else "(double)NAN"
    if math.isinf(value):
        return ("-" if value < 0 else "") + ("INFINITY" if suffix else "HUGE_VAL")
    return repr(float(value) + 0.0) + suffix


def array(kind, values):
    if values is None or not values:
        return "NULL"
    words = [str(v) if kind == "int64_t" else number(v, "f" if kind == "float" else "") for v in values]
    lines, line = [], " " * 36
    for word in words:
        if len(line) + len(word) > 108:
            lines.append(line.rstrip())
            line = ""
        line += word + ", "
    lines.append(line.rstrip(", "))
    return f"(const {kind}[]){{" + "\n         ".join(lines).lstrip() + "}"


def initialiser(fields):
    """Fields of a struct, those without arrays as many to a line as fit."""
    lines = [""]
    for name, value in fields:
        if value == "NULL":
            continue
        field = f".{name} = {value},"
        if len(lines[-1]) + len(field) > 110 or "{" in field + lines[-1]:
            lines.append("")
        lines[-1] += " " * bool(lines[-1]) + field
    return "    {" + "\n     ".join(line for line in lines if line)[:-1] + "},"


def text(value):
    return f'"{value}"'


def name_text(c):
    return text(c.name + (f" (PyTorch differs: {c.difference})" if c.difference else ""))


def case_text(c):
    labels = c.labels[0] if c.labels else c.index
    return initialiser([
        ("name", name_text(c)),
        ("outer", c.outer), ("classes", c.classes), ("inner", c.inner), ("logits", array("float", c.x)),
        ("labels", len(c.labels[0]) // c.rows if c.labels else 1 if c.index is not None else 0),
        ("index", array("int64_t", labels)),
        ("probabilities", array("float", c.q if c.q is not None else c.labels[1] if c.labels else None)),
        ("ignore_index", c.ignore_index), ("smoothing", number(c.smoothing, "")),
        ("normalizer", number(c.normalizer, "")), ("class_weights", array("float", c.weights)),
        ("row_weights", array("float", c.row_weights)), ("dloss", array("float", c.dloss)),
        ("kept_rows", sum(c.kept_rows)), ("denominator", number(c.denominator, "")),
        ("loss", array("double", c.none)), ("sum", number(c.sum[0], "")), ("mean", number(c.mean[0], "")),
        ("grad", array("double", c.grad_none)), ("grad_sum", array("double", c.grad_sum)),
        ("grad_mean", array("double", c.grad_mean))])


def bce_text(c):
    return initialiser([
        ("name", name_text(c)), ("rows", c.rows), ("classes", c.classes), ("logits", array("float", c.x)),
        ("targets", array("float", c.t)), ("weights", array("float", c.weights)),
        ("weight_row_stride", c.strides[0]), ("weight_class_stride", c.strides[1]),
        ("pos_weight", array("float", c.pos_weight)), ("loss", array("double", c.none)),
        ("sum", number(c.sum[0], "")), ("mean", number(c.mean[0], "")), ("grad_sum", array("double", c.grad_sum)),
        ("grad_mean", array("double", c.grad_mean))])


def generate():
    cases = [*index_cases(), *masked_cases(), *probability_cases(), *other_cases()]
    return "\n".join([
        f"/* Written by tests/golden_vectors.py with PyTorch {torch.__version__.split('+')[0]}; see there. */",
        "/* clang-format off */", "static const struct golden goldens[] = {", *map(case_text, cases), "};", "",
        "static const struct golden_bce bce_goldens[] = {", *map(bce_text, bce_cases()), "};",
        "/* clang-format on */", ""])


def parts(source):
    """Text with its decimal fractions taken out, and those. Their last digits depend on the processor."""
    pattern = r"-?\d+\.\d+(?:e[+-]?\d+)?|-?\d+e[+-]?\d+"
    return re.sub(r"\s+", "", re.sub(pattern, "#", source)), [float(v) for v in re.findall(pattern, source)]


def main():
    new = generate()
    if sys.argv[1:] == ["--check"]:
        (frame, numbers), (old_frame, old_numbers) = parts(new), parts(OUTPUT.read_text())
        same = frame == old_frame and len(numbers) == len(old_numbers) and all(
            abs(a - b) <= 1e-11 * abs(b) + 1e-14 for a, b in zip(numbers, old_numbers))
        print(f"{OUTPUT.name}: {len(numbers)} numbers, " + ("as PyTorch has them" if same else "not as PyTorch has them"))
        sys.exit(not same)
    if sys.argv[1:]:
        sys.exit(__doc__)
    OUTPUT.write_text(new)


main()
