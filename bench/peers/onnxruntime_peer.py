"""ONNX Runtime: its loss operator, and graphs that compose the gradient, for which it has an operator only in training
builds."""
import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper

from peer import FunctionCase, Peer

OPSET = 18


def node(operator, inputs, outputs, **attributes):
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def loss_nodes(reduction, outputs="loss"):
    return [node("SoftmaxCrossEntropyLoss", "x target", outputs, reduction=reduction)]


def gradient_nodes(each):
    """From the probabilities p to the gradient: scaled, and the target's entry lowered."""
    scaled = [] if each else [node("Mul", "p scale", "scaled")]
    return scaled + [node("ScatterElements", f"{'p' if each else 'scaled'} column updates", "grad", axis=1,
                          reduction="add")]


def column_nodes():
    return [node("Unsqueeze", "target axis", "column"), node("Shape", "column", "column_shape"),
            node("Expand", "minus_scale column_shape", "updates")]


def by_loss_operator(reduction):
    """The loss operator gives the log-probabilities too."""
    return [*loss_nodes(reduction, "loss log_p"), node("Exp", "log_p", "p"), *column_nodes(),
            *gradient_nodes(reduction == "none")]


def by_softmax(reduction, gradient=True):
    tail = ([node("Squeeze", "negative axis", "loss")] if reduction == "none" else
            [node("ReduceMean", "negative", "loss", keepdims=0)])
    return [node("Softmax", "x", "p", axis=1), *column_nodes(), node("GatherElements", "p column", "p_target", axis=1),
            node("Log", "p_target", "log_p_target"), node("Neg", "log_p_target", "negative"), *tail,
            *(gradient_nodes(reduction == "none") if gradient else [])]


class OnnxRuntimePeer(Peer):
    group = "onnxruntime"
    NOTES = {
        "onnxruntime": "SoftmaxCrossEntropyLoss, which computes all log-probabilities also for the loss alone; the "
                       "gradient composed around them: Exp, Mul, ScatterElements (which copies), each over the whole "
                       "batch. Only builds for training have the gradient's operator. Output bound to a given array",
        "onnxruntime-softmax": "composed by hand: Softmax, loss from -Log of the target's probability (infinite where "
                               "that is 0), Mul, ScatterElements: fewer passes than around its loss operator. Output "
                               "bound to a given array",
    }

    def __init__(self, threads):
        self.threads = threads

    def version(self):
        return f"ONNX Runtime {onnxruntime.__version__}"

    def names(self):
        return list(self.NOTES)

    def session(self, nodes, rows, gradient, each=False):
        """Inputs x and target, outputs loss and grad."""
        def tensor(name, kind, dimensions):
            return helper.make_tensor_value_info(name, kind, dimensions)

        scale = 1.0 if each else 1.0 / rows
        constants = {"scale": (TensorProto.FLOAT, [], [scale]), "minus_scale": (TensorProto.FLOAT, [1, 1], [-scale]),
                     "axis": (TensorProto.INT64, [1], [1])}
        used = {name for item in nodes for name in item.input}
        outputs = [tensor("loss", TensorProto.FLOAT, [None] if each else [])]
        if gradient:
            outputs.append(tensor("grad", TensorProto.FLOAT, [None, None]))
        graph = helper.make_graph(nodes, "loss", [tensor("x", TensorProto.FLOAT, [None, None]),
                                                  tensor("target", TensorProto.INT64, [None])], outputs,
                                  [helper.make_tensor(name, *constants[name]) for name in constants if name in used])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def cases(self, batch):
        yield lambda: self.case(batch, "onnxruntime", "forward", loss_nodes("mean"))
        yield lambda: self.case(batch, "onnxruntime", "out-of-place", by_loss_operator("mean"))
        yield lambda: self.case(batch, "onnxruntime-softmax", "forward", by_softmax("mean", gradient=False))
        yield lambda: self.case(batch, "onnxruntime-softmax", "out-of-place", by_softmax("mean"))

    def case(self, batch, name, mode, nodes):
        gradient = mode != "forward"
        session = self.session(nodes, batch.rows, gradient)
        loss = numpy.zeros((), numpy.float32)
        bindings = []
        for x, grad in zip(batch.inputs, batch.work):
            binding = session.io_binding()
            arrays = {"x": x, "target": batch.targets64}
            for input_name, array in arrays.items():
                binding.bind_input(input_name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            binding.bind_output("loss", "cpu", 0, numpy.float32, (), loss.ctypes.data)
            if gradient:
                binding.bind_output("grad", "cpu", 0, numpy.float32, grad.shape, grad.ctypes.data)
            bindings.append(binding)

        def call(slot):
            session.run_with_iobinding(bindings[slot])

        return FunctionCase(batch, name, mode, call, lambda slot: (float(loss), batch.work[slot] if gradient else None),
                            self.NOTES[name])

    def evaluate(self, name, logits, targets):
        nodes = by_loss_operator("none") if name == "onnxruntime" else by_softmax("none")
        session = self.session(nodes, len(targets), True, each=True)
        losses, grad = session.run(["loss", "grad"], {"x": logits, "target": targets.astype(numpy.int64)})
        return losses, grad
