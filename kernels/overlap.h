/*
 * Part of kernels/algorithm.h: what keeps memory busy while arithmetic goes on, for CPUs that do not see to it by
 * themselves (XENT_MEMORY_OVERLAP in kernel.h). Lines are fetched ahead by instructions; and a row's second pass, which
 * needs nothing from memory, is taken step by step beside the first pass over the row that comes next, which waits for
 * it. No bit depends on it.
 */
#ifndef XENT_KERNELS_OVERLAP_H
#define XENT_KERNELS_OVERLAP_H

enum {
    STEP = VW == 16 ? 64 : 32, /* classes that are checked against the window before any of them is final */
    LINE = 16,                 /* floats of a cache line */
    AHEAD_L1 = 384,            /* floats that lines are fetched ahead of their use */
    AHEAD_L2 = 1024            /* a page: where the CPU's own prefetchers stop */
};

/* How far to fetch ahead, in floats: into the first-level cache and into the second; 0: not at all. */
struct distance {
    size_t l1, l2;
};

static const struct distance no_fetch = {0, 0}, overlapping = {AHEAD_L1, AHEAD_L2};

/* Elsewhere: 4 % in place on Zen 4; a forward loses 3 to 7 %, with the output elsewhere 15 %. */
static const struct distance in_place_fetch = {1024, 0};

static ALWAYS_INLINE void fetch_ahead(const float *x, size_t count, struct distance ahead)
{
    for (size_t i = 0; ahead.l1 && i < count; i += LINE)
        prefetch(x + ahead.l1 + i);
    for (size_t i = 0; ahead.l2 && i < count; i += LINE)
        prefetch_l2(x + ahead.l2 + i);
}

/* So many of count floats lie before the first whole cache line. */
static ALWAYS_INLINE size_t to_line(const float *p, size_t count)
{
    const size_t head = (0 - (uintptr_t)p / sizeof *p) % LINE;
    return head < count ? head : count;
}

/* What is left to do of the second pass over a row whose exponentials all lie in the window, for a multiplier that is
   plain (row_scale.h) and has its power of two in hi and lo. */
struct second {
    const float *x; /* NULL: the exponentials are in out; or logits, from which they are formed again: then out begins a
                       cache line, and what is written goes past the caches */
    float *out;
    size_t left; /* classes */
    float hi, lo;
    float *target; /* where the target's gradient belongs, or NULL */
    float target_gradient;
    bool parted;  /* what goes past the caches is in two parts: left is what comes before the target's line */
    size_t after; /* classes after it */
};

/* The gradient again from a logit. */
static ALWAYS_INLINE vf second_again(vf x, vf hi, vf lo)
{
    const vf t = exp_round(x);
    const vf e = exp_polynomial(vtable(table, t), exp_reduce(x, t));
    return vfma(e, hi, vmul(e, lo));
}

/* One step. */
static ALWAYS_INLINE void second_scale(float *out, float hi, float lo)
{
    for (int i = 0; i < STEP; i += SW) {
        const sf e = sload(out + i);
        sstore(out + i, sfma(e, sset(hi), smul(e, sset(lo))));
    }
}

/* One step, or one line. */
static ALWAYS_INLINE void second_stream(const float *x, float *out, int classes, float hi, float lo)
{
    for (int i = 0; i < classes; i += VW)
        vstream(out + i, second_again(vload(x + i), vset(hi), vset(lo)));
}

/* So many classes at once, the target's among them if it is there. */
static ALWAYS_INLINE void second_some(struct second *s, size_t classes)
{
    const vf hi = vset(s->hi), lo = vset(s->lo);
    for (size_t j = 0; j < classes; j += VW) {
        const size_t left = classes - j;
        if (s->x) {
            store_left(s->out + j, second_again(load_left(s->x + j, left), hi, lo), left);
        } else {
            const vf e = load_left(s->out + j, left);
            store_left(s->out + j, vfma(e, hi, vmul(e, lo)), left);
        }
    }
    s->x = s->x ? s->x + classes : NULL;
    s->out += classes;
    s->left -= classes;
}

/* The line of a target that goes past the caches with its neighbours: to store it afterwards would bring the line
   back. */
static void second_target_line(struct second *s)
{
    float line[LINE] __attribute__((aligned(64)));
    for (int i = 0; i < LINE; i += VW)
        vstore(line + i, second_again(vload(s->x + i), vset(s->hi), vset(s->lo)));
    line[s->target - s->out] = s->target_gradient;
    for (int i = 0; i < LINE; i += VW)
        vstream(s->out + i, vload(line + i));
    s->x += LINE;
    s->out += LINE;
    s->target = NULL;
}

static ALWAYS_INLINE void second_lines(struct second *s)
{
    for (; s->left >= LINE; s->left -= LINE, s->x += LINE, s->out += LINE)
        second_stream(s->x, s->out, LINE, s->hi, s->lo);
}

/* The last lines before the target's, and that; then what is left is the rest. */
static NOINLINE void second_target(struct second *s)
{
    second_lines(s);
    second_target_line(s);
    s->left = s->after;
    s->parted = false;
}

/* A second pass over so many classes of row x, which goes past the caches. */
static NOINLINE void second_begin_stream(struct second *s, const float *x)
{
    s->x = x;
    second_some(s, to_line(s->out, s->left));
    const size_t whole = s->left / LINE * LINE;
    if (!s->target || s->target < s->out || s->target >= s->out + whole)
        return;
    const size_t before = (size_t)(s->target - s->out) / LINE * LINE;
    s->after = s->left - before - LINE;
    s->left = before;
    s->parted = true;
    if (before < STEP)
        second_target(s);
}

/* All that is left. */
static ALWAYS_INLINE void second_end(struct second *s)
{
    if (s->parted)
        second_target(s);
    if (s->x)
        second_lines(s);
    for (; s->left >= STEP; s->left -= STEP, s->out += STEP)
        second_scale(s->out, s->hi, s->lo);
    second_some(s, s->left);
    if (s->target)
        *s->target = s->target_gradient;
}

#endif
