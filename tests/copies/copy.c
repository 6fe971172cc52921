/*
 * One of two copies of the library in a program: compiled once for each namespace. tools/hygiene builds it.
 */
#include <xent/xent.h>

#include <string.h>

#define PASTED(prefix, name) prefix##name
#define IN(prefix, name) PASTED(prefix, name)

const char *IN(XENT_NAMESPACE, run)(const char *isa, float loss[2]);

/* Selects a kernel in this copy, if isa is not NULL, and computes. Returns the kernel in use, or NULL. */
const char *IN(XENT_NAMESPACE, run)(const char *isa, float loss[2])
{
    const float logits[6] = {1, 2, 3, -1, 0, 4};
    const int32_t targets[2] = {2, 0};
    float grad[6];
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    if (isa && xent_select(isa) != XENT_OK)
        return NULL;
    return xent_fused_f32(logits, targets, 2, 3, loss, grad, &options) == XENT_OK ? xent_isa() : NULL;
}
