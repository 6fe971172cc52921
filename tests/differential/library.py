"""libxent.so by ctypes: the structs of include/xent/xent.h and the calls that the tester makes."""
import ctypes
import re
from ctypes import POINTER, c_char_p, c_double, c_int, c_int64, c_size_t, c_void_p

TASK = ctypes.CFUNCTYPE(None, c_void_p, c_size_t)
PARALLEL_FOR = ctypes.CFUNCTYPE(None, c_void_p, TASK, c_void_p, c_size_t)

F32, F64 = 0, 1
I32, I64, U8, U16, PROBABILITIES = range(5)
MEAN, SUM, NONE = range(3)


class Strides(ctypes.Structure):
    _fields_ = [("outer", c_size_t), ("classes", c_size_t), ("inner", c_size_t)]


class Executor(ctypes.Structure):
    _fields_ = [("parallel_for", PARALLEL_FOR), ("context", c_void_p), ("threads", c_size_t)]


class Problem(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("dtype", c_int), ("outer", c_size_t), ("classes", c_size_t),
                ("inner", c_size_t), ("logits", c_void_p), ("logits_strides", POINTER(Strides)), ("grad", c_void_p),
                ("grad_strides", POINTER(Strides)), ("target_type", c_int), ("labels", c_size_t),
                ("targets", c_void_p), ("targets_strides", POINTER(Strides)), ("probabilities", c_void_p),
                ("probabilities_strides", POINTER(Strides)), ("ignore_index", c_int64), ("label_smoothing", c_double),
                ("class_weights", c_void_p), ("row_weights", c_void_p), ("row_weights_strides", POINTER(Strides)),
                ("dloss", c_void_p), ("dloss_strides", POINTER(Strides)), ("reduction", c_int),
                ("normalizer", c_double), ("empty_mean_is_zero", c_int), ("loss", c_void_p), ("lse", c_void_p),
                ("kept_rows", POINTER(c_size_t)), ("denominator", POINTER(c_double)), ("error_row", POINTER(c_size_t)),
                ("executor", POINTER(Executor))]

    def __init__(self, **fields):
        super().__init__(**{"struct_size": ctypes.sizeof(Problem), "inner": 1, "labels": 1, "ignore_index": -100,
                            **fields})


class BceOptions(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("reduction", c_int), ("logits_stride", c_size_t),
                ("targets_stride", c_size_t), ("grad_stride", c_size_t), ("weights", c_void_p),
                ("weight_row_stride", c_size_t), ("weight_class_stride", c_size_t), ("pos_weight", c_void_p),
                ("executor", POINTER(Executor))]

    def __init__(self, **fields):
        super().__init__(**{"struct_size": ctypes.sizeof(BceOptions), **fields})


def fields_of(header, name):
    """The names of a struct's fields, from the header."""
    body = re.search(r"typedef struct %s \{(.*?)\n\} %s;" % (name, name), header, re.DOTALL).group(1)
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)
    return [re.sub(r".*[\s*]", "", name.strip()) for line in body.split(";") for name in line.split(",") if name.strip()]


class Library:
    def __init__(self, path, header):
        for struct, name in (Strides, "xent_strides"), (Problem, "xent_problem"), (BceOptions, "xent_bce_options"):
            ours, theirs = [field for field, _ in struct._fields_], fields_of(header, name)
            if ours != theirs:
                raise SystemExit(f"{name} of the header has other fields than the tester knows: {theirs}, not {ours}")
        self.c = ctypes.CDLL(str(path))
        self.c.xent_isas.restype = POINTER(c_char_p)
        self.c.xent_status_string.restype = c_char_p
        self.c.xent_cross_entropy.argtypes = [POINTER(Problem)]
        self.c.xent_bce_f32.argtypes = [c_void_p, c_void_p, c_size_t, c_size_t, c_void_p, c_void_p,
                                        POINTER(BceOptions)]
        names = self.c.xent_isas()
        self.isas = []
        while names[len(self.isas)]:
            self.isas.append(names[len(self.isas)].decode())
        # Of no rows: nothing but the options is looked at.
        self.has_f64 = self.cross_entropy(Problem(dtype=F64, reduction=NONE)) is None

    def select(self, isa):
        if self.c.xent_select(isa.encode()) != 0:
            raise SystemExit(f"xent_select refuses {isa}")

    def _words(self, status):
        return None if status == 0 else self.c.xent_status_string(status).decode()

    def cross_entropy(self, problem):
        """None, or why it failed."""
        return self._words(self.c.xent_cross_entropy(ctypes.byref(problem)))

    def bce(self, *arguments):
        return self._words(self.c.xent_bce_f32(*arguments))


def executor(threads, order):
    """An executor that runs its tasks one after the other: as they come, backwards, or shuffled by a random.Random."""
    def parallel_for(context, task, argument, tasks):
        indices = list(range(tasks))
        if order == "backwards":
            indices.reverse()
        elif order:
            order.shuffle(indices)
        for index in indices:
            task(argument, index)
    return Executor(PARALLEL_FOR(parallel_for), None, threads)
