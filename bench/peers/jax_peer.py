"""JAX: jit of the usual loss and its value_and_grad."""
import ctypes

import jax
import jax.numpy as jnp
import numpy

from data import allocate
from peer import FunctionCase, Peer, Skip


def row_losses(x, target):
    """As optax.softmax_cross_entropy_with_integer_labels has it."""
    return jax.nn.logsumexp(x, axis=-1) - jnp.take_along_axis(x, target[:, None], axis=-1)[:, 0]


def mean_loss(x, target):
    return jnp.mean(row_losses(x, target))


def sum_and_losses(x, target):
    losses = row_losses(x, target)
    return jnp.sum(losses), losses


def shared(array):
    """The array as JAX's, in the same memory."""
    x = jax.dlpack.from_dlpack(array, copy=False)
    if x.unsafe_buffer_pointer() != array.ctypes.data:
        raise Skip("JAX copies the logits instead of using the buffer that all peers share")
    return x


class JaxPeer(Peer):
    group = "jax"
    NOTES = {
        "jax": "jit of logsumexp(x) - x[target], as in optax, and of its value_and_grad. XLA's loops go over the "
               "whole batch each: the logits are read twice; with the gradient, a fresh array is written, read and "
               "rewritten besides",
        "jax-donated": "value_and_grad with a donated argument for the gradient's memory: the logits (in place), or "
                       "an array of the same shape (out of place). The logits that it overwrites are an array of "
                       "JAX's own, filled again through its address",
    }

    def __init__(self):
        # Calls run at once in the calling thread where they can, rather than in another one that it has to wait for.
        jax.config.update("jax_cpu_enable_async_dispatch", False)

    def version(self):
        return f"JAX {jax.__version__}"

    def names(self):
        return list(self.NOTES)

    def cases(self, batch):
        yield lambda: self.as_called(batch, "forward")
        yield lambda: self.as_called(batch, "out-of-place")
        yield lambda: self.in_place(batch)
        yield lambda: self.out_of_place(batch)

    def as_called(self, batch, mode):
        inputs, target = [shared(x) for x in batch.inputs], jnp.asarray(batch.targets)
        function = jax.jit(mean_loss if mode == "forward" else jax.value_and_grad(mean_loss))
        last = {}

        def call(slot):
            last.clear()
            last["result"] = function(inputs[slot], target)
            jax.block_until_ready(last["result"])

        def result(slot):
            if mode == "forward":
                return float(last["result"]), None
            return float(last["result"][0]), numpy.asarray(last["result"][1])

        return FunctionCase(batch, "jax", mode, call, result, self.NOTES["jax"])

    def in_place(self, batch):
        target = jnp.asarray(batch.targets)
        arrays = [own_array(batch) for _ in range(batch.slots)]
        function = jax.jit(jax.value_and_grad(mean_loss), donate_argnums=0)
        last = {}

        def call(slot):
            last["loss"], arrays[slot] = function(arrays[slot], target)
            jax.block_until_ready(arrays[slot])

        return FunctionCase(batch, "jax-donated", "in-place", call,
                            lambda slot: (float(last["loss"]), view(arrays[slot])), self.NOTES["jax-donated"],
                            input_of=lambda slot: arrays[slot].unsafe_buffer_pointer())

    def out_of_place(self, batch):
        inputs, target = [shared(x) for x in batch.inputs], jnp.asarray(batch.targets)
        arrays = [own_array(batch) for _ in range(batch.slots)]
        function = jax.jit(lambda x, target, memory: jax.value_and_grad(mean_loss)(x, target), donate_argnums=2,
                           keep_unused=True)
        last = {}

        def call(slot):
            last["loss"], arrays[slot] = function(inputs[slot], target, arrays[slot])
            jax.block_until_ready(arrays[slot])

        return FunctionCase(batch, "jax-donated", "out-of-place", call,
                            lambda slot: (float(last["loss"]), view(arrays[slot])), self.NOTES["jax-donated"])

    def evaluate(self, name, logits, targets):
        x = allocate(logits.size).reshape(logits.shape)
        x[:] = logits
        (_, losses), grad = jax.jit(jax.value_and_grad(sum_and_losses, has_aux=True))(x, targets)
        return numpy.asarray(losses), numpy.asarray(grad)


def own_array(batch):
    """An array that JAX allocated, which it can be given back."""
    return jax.block_until_ready(jnp.zeros((batch.rows, batch.classes), jnp.float32) + 0)


def view(array):
    """A look at its memory without making JAX keep a copy."""
    pointer = ctypes.cast(array.unsafe_buffer_pointer(), ctypes.POINTER(ctypes.c_float))
    return numpy.ctypeslib.as_array(pointer, array.shape)
