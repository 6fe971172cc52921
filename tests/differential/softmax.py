"""A random problem of xent_cross_entropy, what PyTorch makes of it in float64, and how far apart the two are."""
import ctypes
import math

import numpy as np
import torch
import torch.nn.functional as F

import library as xent
from arrays import place

LABEL_TYPES = {xent.I32: np.int32, xent.I64: np.int64, xent.U8: np.uint8, xent.U16: np.uint16}
TYPE_NAMES = {xent.I32: "int32", xent.I64: "int64", xent.U8: "uint8", xent.U16: "uint16"}
REDUCTIONS = {xent.MEAN: "mean", xent.SUM: "sum", xent.NONE: "none"}
LAYOUTS = ("packed", "packed", "padded", "classes-last", "permuted")


def ulp(exact, dtype):
    """The distance of neighbours around exact values."""
    least, digits = (-149, 24) if dtype == np.float32 else (-1074, 53)
    _, exponent = np.frexp(np.abs(exact))
    return np.ldexp(1.0, np.maximum(exponent - digits, least))


class Softmax:
    """What the outcome of a random generator asks for. A case has rows [outer][inner], and says in self.tags what is
    special about it."""

    def __init__(self, rng, has_f64, kind=None):
        self.rng, self.tags, self.exceptions = rng, set(), set()
        self.numpy = np.random.Generator(np.random.PCG64(rng.getrandbits(64)))
        self.dtype = np.float64 if has_f64 and rng.random() < 0.35 else np.float32
        self._shape()
        self._logits()
        self._targets()
        self._options()

    def chance(self, probability):
        return self.rng.random() < probability

    def tag(self, *names):
        self.tags.update(names)

    def _shape(self):
        rng = self.rng
        shape = rng.choice(("(C)", "(N,C)", "(N,C)", "(N,C,d1)", "(N,C,d1,d2)"))
        classes = rng.choice((1, 2, 3, rng.randint(2, 40), rng.randint(2, 40), rng.randint(41, 400)))
        outer, self.spatial = rng.choice((1, 2, rng.randint(1, 20))), ()
        if shape == "(C)":
            outer = 1
        elif shape == "(N,C,d1)":
            self.spatial = (rng.randint(1, 40),)
        elif shape == "(N,C,d1,d2)":
            self.spatial = (rng.randint(1, 6), rng.randint(1, 9))
        size = rng.random()
        if size < 0.02:
            classes, outer, self.spatial = rng.randint(8000, 18000), rng.randint(1, 3), self.spatial[:1] and (2,)
            shape = "(N,C,d1)" if self.spatial else "(N,C)"
        elif size < 0.05 and shape == "(N,C)":
            classes, outer = rng.randint(1, 12), rng.randint(250, 1500)
        elif size < 0.07 and shape != "(C)":
            outer = 0
            self.tag("no rows")
        self.shape, self.outer, self.classes = shape, outer, classes
        self.inner = math.prod(self.spatial)
        self.tag(f"shape {shape}", "float64" if self.dtype == np.float64 else "float32")

    def of_torch(self, values, axis=True):
        """[outer][classes][inner] or [outer][1][inner] in the shape that PyTorch wants."""
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        shape = (self.outer, *([self.classes] if axis else []), *self.spatial)
        return tensor.reshape(shape[1:] if self.shape == "(C)" else shape)

    def of_xent(self, tensor, extent=1):
        return tensor.detach().numpy().reshape(self.outer, extent, self.inner)

    def layout(self, what):
        layout = self.rng.choice(LAYOUTS)
        self.tag(f"{what} {layout}")
        return layout

    def _per_row(self, what, values, extent=1):
        """Numbers for each row, perhaps with strides of 0, and then the same along that dimension."""
        broadcast = [axis for axis in ((0, 2) if self.chance(0.5) else (0, 1, 2)) if self.chance(0.2)]
        for axis in broadcast:
            values = np.repeat(values.take([0], axis), values.shape[axis], axis) if values.size else values
        if broadcast:
            self.tag(f"{what} with a stride of 0")
        dtype = values.dtype if values.dtype.kind in "iu" else self.dtype
        return place(self.rng, values, dtype, self.layout(what), broadcast)

    def _logits(self):
        rng, shape = self.rng, (self.outer, self.classes, self.inner)
        values = self.numpy.standard_normal(shape) * rng.choice((0.1, 1, 1, 5, 30, 100))
        values += rng.choice((0, 0, 0, 100, -300, 1e4, -1e4, 1e6))
        self.masked = self.poisoned = False
        if self.chance(0.12):
            values[self.numpy.random(shape) < rng.choice((0.05, 0.3))] = -np.inf
            self.masked = True
            self.tag("-inf logits")
        if self.chance(0.06) and self.outer:
            for _ in range(rng.randint(1, 3)):
                where = (rng.randrange(self.outer), rng.randrange(self.classes), rng.randrange(self.inner))
                values[where] = rng.choice((np.nan, np.inf))
            self.poisoned = True
            self.tag("NaN or +inf logits")
        values = values.astype(self.dtype)
        layout = self.layout("logits")
        self.in_place = self.has_grad = False
        broadcast = ()
        if self.chance(0.85):
            self.has_grad = True
            self.in_place = self.chance(0.4)
        if not self.in_place and self.chance(0.06):
            broadcast = (rng.choice((0, 2)),)
            self.tag("logits with a stride of 0")
        for axis in broadcast:
            values = np.repeat(values.take([0], axis), values.shape[axis], axis) if values.size else values
        self.logits = place(rng, values, self.dtype, layout, broadcast)
        self.x = values.astype(np.float64)
        self.grad = None
        if self.has_grad and not self.in_place:
            self.grad = place(rng, np.zeros(shape), self.dtype, self.layout("gradient"))
        self.tag("forward only" if not self.has_grad else "in place" if self.in_place else "gradient apart")

    def _targets(self):
        rng = self.rng
        self.kind = rng.choices(("index", "probabilities", "labels"), (5, 3, 3))[0]
        self.label_probabilities, self.labels, self.ignore_index = None, 1, -100
        rows = (self.outer, self.inner)
        if self.kind == "probabilities":
            self._probabilities()
            return
        types = [t for t in LABEL_TYPES if self.classes <= 256 or t != xent.U8]
        self.target_type = rng.choice(types)
        if self.kind == "labels":
            self.labels = rng.randint(1, 5)
        labels = self.numpy.integers(0, self.classes, (self.outer, self.labels, self.inner))
        info = np.iinfo(LABEL_TYPES[self.target_type])
        if self.chance(0.45):
            outside = [v for v in (-100, -1, 255, 65535, self.classes, 2**31 - 1, -2**63) if info.min <= v <= info.max]
            inside = self.chance(0.35)
            self.ignore_index = rng.randrange(self.classes) if inside else rng.choice(outside)
            self.tag("ignore_index inside the classes" if inside else "ignore_index outside the classes")
            ignored = self.numpy.random(labels.shape) < rng.choice((0.1, 0.5, 0.9))
            labels[ignored] = self.ignore_index
            if self.chance(0.1):
                labels[:] = self.ignore_index
        # An index that is ignored takes part in any case, also by chance.
        self.targets = self._per_row("targets", labels.astype(LABEL_TYPES[self.target_type]), self.labels)
        if self.kind == "labels":
            self.tag(f"{self.labels} labels a row")
            if self.labels == 1 or self.chance(0.7):
                q = self.numpy.random(labels.shape) * rng.choice((1, 1 / self.labels))
                q[self.numpy.random(labels.shape) < 0.1] = 0
                if self.chance(0.1):
                    q -= 0.3
                    self.tag("negative probabilities")
                self.label_probabilities = self._per_row("label probabilities", q, self.labels)
            self.tag("labels with probabilities" if self.label_probabilities else "labels without probabilities")
        else:
            self.tag("plain labels")
        self.tag(TYPE_NAMES[self.target_type])
        assert rows == (self.outer, self.inner)

    def _probabilities(self):
        rng, shape = self.rng, (self.outer, self.classes, self.inner)
        self.target_type = xent.PROBABILITIES
        q = self.numpy.random(shape)
        how = rng.choice(("normalised", "not normalised", "sparse", "one-hot", "negative"))
        if how == "sparse":
            q[self.numpy.random(shape) < 0.7] = 0
        elif how == "one-hot":
            q = np.moveaxis(np.eye(self.classes)[self.numpy.integers(0, self.classes, (self.outer, self.inner))], 2, 1)
        elif how == "negative":
            q -= 0.2
        elif how == "normalised":
            q /= q.sum(axis=1, keepdims=True)
        self.tag("class probabilities", f"probabilities {how}")
        broadcast = [axis for axis in (0, 2) if self.chance(0.1)]
        for axis in broadcast:
            q = np.repeat(q.take([0], axis), q.shape[axis], axis) if q.size else q
        self.targets = place(rng, q, self.dtype, self.layout("probabilities"), broadcast)

    def _options(self):
        rng = self.rng
        self.reduction = rng.choice((xent.MEAN, xent.MEAN, xent.SUM, xent.NONE))
        self.tag(f"reduction {REDUCTIONS[self.reduction]}")
        self.smoothing = rng.choice((0, 0, 0, 0.1, 0.25, 1, rng.random()))
        self.class_weights = self.row_weights = self.dloss = None
        if self.chance(0.35):
            weights = np.exp(self.numpy.standard_normal((1, self.classes, 1)) * rng.choice((0.3, 3)))
            if self.chance(0.4):
                weights[self.numpy.random(weights.shape) < rng.choice((0.2, 0.9))] = 0
                self.tag("class weights of 0")
            self.class_weights = place(rng, weights, self.dtype)
            self.tag("class weights")
        if self.smoothing:
            self.tag("label smoothing")
            if self.class_weights:
                self.tag("label smoothing and class weights")
        if self.chance(0.25):
            weights = self.numpy.random((self.outer, 1, self.inner)) * 2
            weights[self.numpy.random(weights.shape) < 0.15] = 0
            self.row_weights = self._per_row("row weights", weights)
            self.tag("row weights")
        if self.has_grad and self.chance(0.3):
            self.dloss = self._per_row("dloss", self.numpy.standard_normal((self.outer, 1, self.inner)))
            self.tag("dloss")
        self.normalizer, self.empty_mean_is_zero = 0.0, 0
        if self.reduction == xent.MEAN and self.chance(0.25):
            self.normalizer = rng.choice((1.0, 7.5, 1e6))
            self.tag("normalizer")
        if self.reduction == xent.MEAN and self.chance(0.3):
            self.empty_mean_is_zero = 1
        self.wants_lse, self.wants_counts = self.chance(0.5), self.chance(0.5)
        self.wants_loss = not self.has_grad or self.chance(0.8)
        self.tag(*[name for name, wanted in (("lse", self.wants_lse), ("kept_rows and denominator", self.wants_counts),
                                             ("backward without loss", not self.wants_loss)) if wanted])

    # What PyTorch makes of it.

    def _dense(self, labels, kept_labels):
        """Several labels' probabilities as one for each class, and the same of their magnitudes."""
        q, magnitude = np.zeros((2, self.outer, self.classes, self.inner))
        shares = np.ones(labels.shape)
        if self.label_probabilities:
            shares = self.label_probabilities.values.astype(np.float64)
        outer, _, inner = np.indices(labels.shape)
        at = outer, np.where(kept_labels, labels, 0), inner
        np.add.at(q, at, np.where(kept_labels, shares, 0))
        np.add.at(magnitude, at, np.where(kept_labels, np.abs(shares), 0))
        return q, magnitude

    def expect(self):
        """Sets what the outputs should be, and how far from it they may be."""
        rows = (self.outer, 1, self.inner)
        weight = None
        w = np.ones((1, self.classes, 1))
        if self.class_weights:
            w = self.class_weights.values.astype(np.float64)
            weight = torch.from_numpy(w.reshape(-1).copy())
        r = self.row_weights.values.astype(np.float64) if self.row_weights else np.ones(rows)
        plain = self.kind == "index"
        if self.kind == "probabilities":
            q, self.kept = self.targets.values.astype(np.float64), np.ones(rows, bool)
            # Floats take the even and the named part of a target off one by one; they cancel if this one is negative.
            magnitude = np.abs(q) if self.dtype == np.float32 else q
        else:
            labels = self.targets.values.astype(np.int64)
            kept_labels = labels != self.ignore_index
            self.kept = kept_labels.any(axis=1, keepdims=True)
            q, magnitude = self._dense(labels, kept_labels)
        self.kept &= r != 0

        x = self.of_torch(self.x).clone().requires_grad_(True)
        options = {"weight": weight, "label_smoothing": float(self.smoothing)}
        if plain:
            target = self.of_torch(labels, axis=False)
            options["ignore_index"] = self.ignore_index
        else:
            target = self.of_torch(q)
        per_row = F.cross_entropy(x, target, reduction="none", **options)
        kept = self.of_torch(self.kept, axis=False)
        factors = self.of_torch(r, axis=False)
        losses = torch.where(kept, per_row * factors, 0.0)
        shares = r * w * (self.smoothing / self.classes + (1 - self.smoothing) * q)
        # The parts of a class's share, of which labels of negative probability may leave little.
        magnitude = np.abs(r * w * (self.smoothing / self.classes + (1 - self.smoothing) * magnitude))
        if plain:
            target_weights = np.where(kept_labels, w.reshape(-1)[np.where(kept_labels, labels, 0)], 0)
            denominator = float(np.where(self.kept, r * target_weights, 0).sum())
        else:
            denominator = float(np.where(self.kept, r, 0).sum())
        divisor = 1.0
        if self.reduction == xent.MEAN:
            divisor = self.normalizer or denominator
        self.count, self.denominator = int(self.kept.sum()), denominator

        upstream = self.dloss.values.astype(np.float64) if self.dloss else np.ones(rows)
        scale = upstream / divisor if divisor else np.zeros(rows)
        losses.backward(self.of_torch(scale, axis=False))
        grad = self.of_xent(x.grad, self.classes).copy()
        with torch.no_grad():
            log_p = self.of_xent(torch.log_softmax(x, 0 if self.shape == "(C)" else 1), self.classes)
            self.lse = self.of_xent(torch.logsumexp(x, 0 if self.shape == "(C)" else 1))
        loss = self.of_xent(losses)
        self._direct(x, target, options, loss, scale, denominator)
        loss, grad = self._exceptions(loss, grad, shares, magnitude, log_p)
        self._set_bounds(loss, grad, magnitude, log_p, scale, divisor, plain)

    def _direct(self, x, target, options, loss, scale, denominator):
        """Where PyTorch has a call for the whole problem, it must agree with what is put together here."""
        if self.row_weights or self.normalizer or self.kind == "labels" or not self.outer:
            return
        if self.reduction == xent.NONE:
            return
        with torch.no_grad():
            direct = F.cross_entropy(x.detach(), target, reduction=REDUCTIONS[self.reduction], **options).item()
        if self.reduction == xent.MEAN and not denominator:
            # The quotient of a loss and 0: PyTorch has NaN where a sum of infinity and NaN comes before it.
            assert not math.isfinite(direct), direct
            return
        composed = float(loss.sum()) / (denominator if self.reduction == xent.MEAN else 1)
        same = direct == composed or abs(direct - composed) <= 1e-11 * (abs(direct) + np.nansum(np.abs(loss)))
        assert same or (math.isnan(direct) and math.isnan(composed)), f"composed {composed}, PyTorch {direct}"
        self.tag("PyTorch's own reduction")

    def _exceptions(self, loss, grad, shares, magnitude, log_p):
        """The documented differences: replaces PyTorch's numbers where they are NaN and xent's are not to be."""
        finite = np.isfinite(self.lse)
        broken = ~self.kept & ~np.isfinite(grad).all(axis=1, keepdims=True)
        if broken.any():
            assert not finite[broken].any()
            self.exceptions.add("an ignored row's logits are not read")
        grad = np.where(self.kept, grad, 0)
        strange = self.kept & finite & np.isnan(loss)
        if strange.any():
            assert np.isneginf(self.x).any(axis=1, keepdims=True)[strange].all()
            # 0 times infinity, but not where terms of infinity have both signs: that is NaN here too.
            terms = np.where(shares == 0, 0, -shares * np.where(shares == 0, 0, log_p))
            with np.errstate(invalid="ignore"):
                loss = np.where(strange, terms.sum(axis=1, keepdims=True), loss)
            self.exceptions.add("nothing of a masked class is nothing")
        mixed = (np.isneginf(self.x) & (np.abs(shares) < magnitude * (1 - 1e-9))).any(axis=1, keepdims=True)
        if (mixed & self.kept).any():
            loss = np.where(mixed & self.kept, np.nan, loss)
            self.exceptions.add("infinite parts of both signs are NaN")
        if self.reduction == xent.MEAN and not self.normalizer and self.denominator == 0 and self.count:
            self.exceptions.add("a mean of no weight has gradient 0")
        return loss, grad

    def _set_bounds(self, loss, grad, magnitude, log_p, scale, divisor, plain):
        unit = 2.0**-24 if self.dtype == np.float32 else 2.0**-53
        finite = np.where(np.isfinite(self.x), self.x, np.nan)
        with np.errstate(all="ignore"):
            largest = np.nan_to_num(np.nanmax(np.abs(finite), axis=1, keepdims=True, initial=0))
            spread = 1 + np.nan_to_num(np.nanmax(finite, axis=1, keepdims=True, initial=-np.inf) -
                                       np.nanmin(finite, axis=1, keepdims=True, initial=np.inf), posinf=0, neginf=0)
            total = magnitude.sum(axis=1, keepdims=True)
            # PyTorch's own rounding, in double, with sums over classes that are not compensated, and that of a product with
            # r w_j (1 - a) in it.
            spread = spread + self.classes / 16
            own = 2.0**-49 * (spread + np.log(self.classes) + (0 if self.dtype == np.float32 else largest)) * total
            one_class = plain and not self.smoothing
            cancelling = 0 if one_class else (2 * unit + 2.0**-48 * (1 if self.dtype == np.float32 else 2.0**-1) *
                                              largest) * total
            self.loss, self.loss_bound = loss, 2 * ulp(loss, self.dtype) + cancelling + own
            self.lse_bound = 1.5 * unit + 0.5 * ulp(self.lse, self.dtype) + 2.0**-50 * (1 + np.abs(self.lse))
            multiplied, taken = np.abs(scale * np.exp(log_p) * total), np.abs(scale * magnitude)
            larger = np.abs(grad) if one_class else np.maximum(multiplied, taken)
            self.exact_grad = grad
            units = 8 if self.dtype == np.float64 else 3 if one_class else 4.2
            # The last term: PyTorch rounds subnormal probabilities, and then multiplies them.
            self.grad_bound = (units * ulp(np.maximum(larger, np.abs(grad)), self.dtype) +
                               2.0**-49 * (spread + largest * 2.0**-4) * (multiplied + taken) +
                               2.0**-1074 * np.abs(scale * total))
            kept = np.where(self.kept, loss, 0)
            self.reduced = float(kept.sum())
            bound = np.where(self.kept, cancelling + own, 0).sum()
            bound += 2 * float(ulp(np.abs(kept).sum() / (divisor or 1), self.dtype)) * (divisor or 1)
        if self.reduction == xent.MEAN:
            bound = bound / divisor if divisor else 0
            if self.count == 0:
                zero = self.empty_mean_is_zero or divisor
                self.reduced = 0.0 if zero else math.nan
            else:
                self.reduced = self.reduced / divisor if divisor else None  # None: not finite
        self.reduced_bound = bound
        if self.count == 0:
            self.tag("every row ignored" if self.outer else "no rows")

    # What the library makes of it.

    def run(self, lib, executor=None):
        """The outputs of a call, or a sentence."""
        pointer = ctypes.byref
        logits = self.logits.copy()
        targets, grad = self.targets.copy(), self.grad and self.grad.copy()
        rows = (self.outer, 1, self.inner)
        count = self.outer * self.inner if self.reduction == xent.NONE else 1
        loss = place(self.rng, np.full((1, 1, count), 77.0), self.dtype)
        lse = place(self.rng, np.full((1, 1, self.outer * self.inner), 77.0), self.dtype)
        kept_rows, denominator = ctypes.c_size_t(12345), ctypes.c_double(12345)
        problem = xent.Problem(
            dtype=xent.F64 if self.dtype == np.float64 else xent.F32, outer=self.outer, classes=self.classes,
            inner=self.inner, logits=logits.address, target_type=self.target_type, labels=self.labels,
            targets=targets.address, ignore_index=self.ignore_index, label_smoothing=self.smoothing,
            reduction=self.reduction, normalizer=self.normalizer, empty_mean_is_zero=self.empty_mean_is_zero,
            loss=loss.address if self.wants_loss else None, lse=lse.address if self.wants_lse else None)
        inputs = [(targets, self.targets)]
        out = logits if self.in_place else grad
        given = {"logits": logits, "targets": targets, "grad": out, "probabilities": self.label_probabilities,
                 "row_weights": self.row_weights, "dloss": self.dloss}
        for name, array in given.items():
            if array is None:
                continue
            setattr(problem, name, array.address)
            if not array.packed:
                setattr(problem, name + "_strides", ctypes.pointer(array.strides))
            if array is not out:
                inputs.append((array, array.copy()))
        if self.class_weights:
            problem.class_weights = self.class_weights.address
        if self.wants_counts:
            problem.kept_rows, problem.denominator = ctypes.pointer(kept_rows), ctypes.pointer(denominator)
        if executor:
            problem.executor = ctypes.pointer(executor)
        logits_before = logits.copy()
        error = lib.cross_entropy(problem)
        if error:
            return error
        if not self.in_place:
            inputs.append((logits, logits_before))
        for array, before in inputs:
            if bytes(array.buffer) != bytes(before.buffer):
                return "an input was written to"
        if out is not None and not out.is_untouched_around(logits_before if self.in_place else self.grad):
            return "something between the gradient's elements was written to"
        for array in loss, lse:
            fresh = array.copy()
            fresh.values[...] = 77.0
            if not array.is_untouched_around(fresh):
                return "something past the losses or log-sum-exps was written to"
        return {"loss": loss.values.copy() if self.wants_loss else None,
                "lse": lse.values.reshape(rows).copy() if self.wants_lse else None,
                "grad": out.values.copy() if out is not None else None,
                "counts": (kept_rows.value, denominator.value) if self.wants_counts else None}

    def complaint(self, got):
        """What is wrong with the outputs of a call; None if nothing is."""
        if isinstance(got, str):
            return got
        if got["counts"] is not None:
            kept, denominator = got["counts"]
            if kept != self.count:
                return f"kept_rows is {kept}, should be {self.count}"
            if not abs(denominator - self.denominator) <= 1e-13 * abs(self.denominator):
                return f"denominator is {denominator}, should be {self.denominator}"
        if got["loss"] is not None and self.reduction == xent.NONE:
            loss = got["loss"].reshape(self.loss.shape)
            complaint = differs("loss", loss, np.where(self.kept, self.loss, 0), self.loss_bound)
            if complaint:
                return complaint
            if (loss[~self.kept].view(f"u{loss.itemsize}") != 0).any():
                return "the loss of an ignored row is not +0"
        elif got["loss"] is not None:
            complaint = differs("loss", got["loss"].reshape(1), np.array([self.reduced], float), self.reduced_bound) \
                if self.reduced is not None else None if not np.isfinite(got["loss"]).any() else "loss is finite"
            if complaint:
                return complaint
        if got["lse"] is not None:
            exact = np.where(np.isinf(self.lse), np.nan, self.lse)
            complaint = differs("lse", got["lse"], np.where(self.kept, exact, 0), self.lse_bound)
            if complaint:
                return complaint
        if got["grad"] is not None:
            complaint = differs("gradient", got["grad"], self.exact_grad, self.grad_bound)
            if complaint:
                return complaint
            ignored = np.broadcast_to(~self.kept, got["grad"].shape)
            if (got["grad"][ignored].view(f"u{got['grad'].itemsize}") != 0).any():
                return "the gradient of an ignored row is not +0"
        return None


def differs(what, got, exact, bound):
    """The worst entry in words, if it is past its bound. NaN and infinities must be where they should be."""
    got = got.astype(np.float64)
    bound = np.broadcast_to(bound, exact.shape)
    limit = float(np.finfo(np.float32).max)
    with np.errstate(invalid="ignore"):
        wrong = ~((got == exact) | (np.abs(got - exact) <= bound) | (np.isnan(got) & np.isnan(exact)) |
                  (np.isinf(got) & (np.abs(exact) + bound >= limit) & (np.sign(got) == np.sign(exact))))
    if not wrong.any():
        return None
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    return (f"{what}{list(first)} is {got[first]!r}, should be {exact[first]!r} +- {bound[first]:.3g} "
            f"({int(wrong.sum())} of {wrong.size} entries)")
