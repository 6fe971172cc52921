"""PyTorch: as people call it, with preallocated outputs, and compiled."""
import torch
import torch.nn.functional as F

from peer import FunctionCase, Peer


def tensors(arrays):
    return [torch.from_numpy(array) for array in arrays]


def composed_gradient(x, target, each=False):
    """(mean loss or every row's, gradient of it), by hand, in a form that Inductor fuses into few loops."""
    largest = x.amax(1, keepdim=True)
    e = (x - largest).exp()
    total = e.sum(1, keepdim=True)
    losses = total.log() + largest - x.gather(1, target[:, None])
    scale = 1.0 if each else 1.0 / x.shape[0]
    of_class = torch.arange(x.shape[1], dtype=torch.int32)[None, :] == target.int()[:, None]
    gradient = e * (scale / total) - torch.where(of_class, scale, 0.0)
    return losses[:, 0] if each else losses.mean(), gradient


class TorchPeer(Peer):
    def __init__(self, threads):
        torch.set_num_threads(threads)
        if torch.get_num_interop_threads() != 1:
            torch.set_num_interop_threads(1)

    def version(self):
        return f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"


def as_called_case(batch, name, loss_function, mode, note):
    """A loss as people call it: the gradient by autograd, into an array that PyTorch allocates."""
    target = torch.from_numpy(batch.targets64)
    inputs = tensors(batch.inputs)
    last = {}

    def forward(slot):
        last.clear()
        with torch.no_grad():
            last["loss"] = loss_function(inputs[slot], target)

    leaves = [x.detach().requires_grad_() for x in inputs] if mode != "forward" else []

    def backward(slot):
        last.clear()
        x = leaves[slot]
        loss = loss_function(x, target)
        loss.backward()
        last["loss"], last["grad"] = loss, x.grad
        x.grad = None  # as optimizer.zero_grad() does

    def result(slot):
        return last["loss"].item(), last["grad"].numpy() if mode != "forward" else None

    return FunctionCase(batch, name, mode, forward if mode == "forward" else backward, result, note)


class EagerPeer(TorchPeer):
    group = "pytorch"
    NOTES = {
        "pytorch-eager": "F.cross_entropy (forward under no_grad), .backward(). In memory: the logits read and the "
                         "log-probabilities written, also for the loss alone; with the gradient, an array of zeros "
                         "but for the targets written, both read again and the result written. Page faults of up to "
                         "three fresh arrays, unless the heap happens to have room, which sets some figures apart",
        "pytorch-prealloc": "the same operators with out=: _log_softmax, nll_loss_forward, nll_loss_backward, "
                            "_log_softmax_backward_data. The same passes without the page faults; not how people call "
                            "it",
        "pytorch-softmax": "composed by hand: _softmax with out=, loss from -log of the target's probability "
                           "(infinite where that is 0), mul_, scatter_add_. In memory: 2 reads, 2 writes. Faster than "
                           "any way by its own loss on long rows, and not how people call it",
    }

    def names(self):
        return list(self.NOTES)

    def cases(self, batch):
        for mode in ("forward", "out-of-place"):
            yield lambda mode=mode: as_called_case(batch, "pytorch-eager", F.cross_entropy, mode,
                                                   self.NOTES["pytorch-eager"])
            yield lambda mode=mode: self.preallocated(batch, mode)
        for mode in ("in-place", "out-of-place"):
            yield lambda mode=mode: self.softmax(batch, mode)

    def preallocated(self, batch, mode):
        target = torch.from_numpy(batch.targets64)
        inputs, work = tensors(batch.inputs), tensors(batch.work)
        log_probabilities = torch.zeros(batch.rows, batch.classes)
        between = torch.zeros(batch.rows, batch.classes) if mode != "forward" else None
        loss, weight, one = torch.zeros(()), torch.zeros(()), torch.ones(())
        aten = torch.ops.aten

        def call(slot):
            aten._log_softmax.out(inputs[slot], 1, False, out=log_probabilities)
            aten.nll_loss_forward.output(log_probabilities, target, None, 1, -100, output=loss, total_weight=weight)
            if mode == "forward":
                return
            aten.nll_loss_backward.grad_input(one, log_probabilities, target, None, 1, -100, weight,
                                              grad_input=between)
            aten._log_softmax_backward_data.out(between, log_probabilities, 1, torch.float32, out=work[slot])

        def result(slot):
            return loss.item(), batch.work[slot] if mode != "forward" else None

        return FunctionCase(batch, "pytorch-prealloc", mode, torch.no_grad()(call), result,
                            self.NOTES["pytorch-prealloc"])

    def softmax(self, batch, mode):
        target = torch.from_numpy(batch.targets64)[:, None]
        inputs, work = tensors(batch.work if mode == "in-place" else batch.inputs), tensors(batch.work)
        probabilities, minus = torch.zeros(batch.rows, 1), torch.full((batch.rows, 1), -1 / batch.rows)
        loss = torch.zeros(())

        def call(slot):
            grad = torch.ops.aten._softmax.out(inputs[slot], 1, False, out=work[slot])
            torch.gather(grad, 1, target, out=probabilities)
            probabilities.log_().neg_()
            torch.mean(probabilities.view(-1), 0, out=loss)
            grad.mul_(1 / batch.rows)
            grad.scatter_add_(1, target, minus)

        return FunctionCase(batch, "pytorch-softmax", mode, torch.no_grad()(call),
                            lambda slot: (loss.item(), batch.work[slot]), self.NOTES["pytorch-softmax"])

    def evaluate(self, name, logits, targets):
        x, target = torch.from_numpy(logits.copy()), torch.from_numpy(targets).long()
        if name == "pytorch-eager":
            x.requires_grad_()
            losses = F.cross_entropy(x, target, reduction="none")
            losses.backward(torch.ones(len(targets)))
            return losses.detach().numpy(), x.grad.numpy()
        if name == "pytorch-prealloc":
            log_probabilities = torch.log_softmax(x, 1)
            losses = F.nll_loss(log_probabilities, target, reduction="none")
            between = torch.zeros_like(x).scatter_(1, target[:, None], -1)
            grad = torch.ops.aten._log_softmax_backward_data(between, log_probabilities, 1, torch.float32)
            return losses.numpy(), grad.numpy()
        p = torch.softmax(x, 1)
        losses = -p.gather(1, target[:, None]).log()[:, 0]
        return losses.numpy(), p.scatter_add_(1, target[:, None], torch.full((len(targets), 1), -1.0)).numpy()


class CompiledPeer(TorchPeer):
    group = "pytorch-compile"
    NOTES = {
        "pytorch-compile": "torch.compile of F.cross_entropy, .backward(). In memory: 1 read (2 of each row); with "
                           "the gradient, the logits are read and the exponentials computed again, and a fresh array "
                           "is written, with its page faults",
        "pytorch-compile-out": "torch.compile of loss and gradient composed by hand and written to a given array: 2 "
                               "reads of each row, exponentials kept in a buffer. Not how people call it",
    }

    def __init__(self, threads):
        super().__init__(threads)
        torch._dynamo.config.recompile_limit = 1 << 20

    def names(self):
        return list(self.NOTES)

    def cases(self, batch):
        torch._dynamo.reset()
        for mode in ("forward", "out-of-place"):
            yield lambda mode=mode: as_called_case(batch, "pytorch-compile", self.compiled(F.cross_entropy), mode,
                                                   self.NOTES["pytorch-compile"])
        for mode in ("in-place", "out-of-place"):
            yield lambda mode=mode: self.composed(batch, mode)

    @staticmethod
    def compiled(function):
        return torch.compile(lambda *arguments: function(*arguments), dynamic=False)

    def composed(self, batch, mode):
        target = torch.from_numpy(batch.targets64)
        inputs, work = tensors(batch.work if mode == "in-place" else batch.inputs), tensors(batch.work)
        last = {}

        def over(x, target):
            loss, gradient = composed_gradient(x, target)
            x.copy_(gradient)
            return loss

        def into(x, target, grad):
            loss, gradient = composed_gradient(x, target)
            grad.copy_(gradient)
            return loss

        function = self.compiled(over if mode == "in-place" else into)

        def call(slot):
            if mode == "in-place":
                last["loss"] = function(inputs[slot], target)
            else:
                last["loss"] = function(inputs[slot], target, work[slot])

        return FunctionCase(batch, "pytorch-compile-out", mode, torch.no_grad()(call),
                            lambda slot: (last["loss"].item(), batch.work[slot]), self.NOTES["pytorch-compile-out"])

    def evaluate(self, name, logits, targets):
        x, target = torch.from_numpy(logits.copy()), torch.from_numpy(targets).long()
        if name == "pytorch-compile":
            x.requires_grad_()
            losses = self.compiled(lambda x, target: F.cross_entropy(x, target, reduction="none"))(x, target)
            losses.backward(torch.ones(len(targets)))
            return losses.detach().numpy(), x.grad.numpy()
        with torch.no_grad():
            losses, grad = self.compiled(lambda x, target: composed_gradient(x, target, each=True))(x, target)
        return losses.numpy(), grad.numpy()
