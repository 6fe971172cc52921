/*
 * This library itself, called like every peer. Which kernel it uses is for the caller to select.
 */
#include "peer.h"

#include <xent/xent.h>

#include <stdio.h>
#include <stdlib.h>

static struct peer_setup open_setup;
static xent_executor executor;

PEER_API const char *peer_version(void)
{
    static char text[48];
    int version = xent_version();
    snprintf(text, sizeof text, "xent %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
    return text;
}

PEER_API const char *peer_open(const struct peer_setup *setup)
{
    open_setup = *setup;
    executor = (xent_executor){setup->executor->parallel_for, setup->executor->context, setup->executor->threads};
    return NULL;
}

PEER_API void peer_run(const struct peer_call *call)
{
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = call->each ? XENT_NONE : XENT_MEAN;
    options.executor = executor.threads > 1 ? &executor : NULL;
    xent_status status = xent_fused_f32(call->logits, call->targets, open_setup.rows, open_setup.classes,
                                        call->each ? call->losses : call->mean, call->grad, &options);
    if (status != XENT_OK) {
        fprintf(stderr, "xent_fused_f32: %s\n", xent_status_string(status));
        abort();
    }
}

PEER_API void peer_close(void)
{
}
