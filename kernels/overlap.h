/*
 * Part of kernels/algorithm.h: what keeps memory busy while arithmetic goes on, for CPUs that do not see to it by
 * themselves (struct xent_memory in kernel.h). Lines are fetched ahead by instructions; and a row's second pass, which
 * needs nothing from memory, is taken step by step beside the first pass over the row that comes next, which waits for
 * it. No bit depends on it.
 */
#ifndef XENT_KERNELS_OVERLAP_H
#define XENT_KERNELS_OVERLAP_H

enum {
    STEP = VW == 16 ? 64 : 32, /* classes that are checked against the window before any of them is final */
    LINE = 16,                 /* floats of a cache line */
    PAGE = 1024,               /* floats */
    PAGES = 8                  /* from which lines are fetched at once */
};

/* How far lines are fetched ahead of their use, in floats; 0: not at all. */
struct distance {
    size_t l1, l2;  /* what is read, into the first-level cache and into the second */
    bool by_four;   /* the latter by line_of_four */
    bool by_pages;  /* into the second by fetch_pages */
    size_t written; /* what ordinary stores will write to, elsewhere than in place */
    size_t scaled;  /* what a second pass beside finds in the second-level cache, if it only scales ... */
    size_t again;   /* ... and if it forms exponentials again */
};

static const struct distance no_fetch = {0},
                             overlapping = {.l1 = 384, .l2 = PAGE, .by_four = true, .written = 256, .scaled = 64},
                             overlapping_in_order = {.l1 = 384, .l2 = PAGE, .written = 256},
                             overlapping_pages = {.l1 = 384, .by_pages = true, .written = 256, .scaled = 64};

/* Early, as measured on Zen 5. In rows of less than 2 pages lines are better in the first-level cache at once: 1000
   classes take a tenth less so, long rows 3 to 5 % more. */
enum { EARLY_LONG = 2 * PAGE };
static const struct distance early_short = {.l1 = 2 * PAGE, .written = PAGE},
                             early_long = {.l2 = 4 * PAGE, .written = PAGE, .scaled = PAGE, .again = PAGE};

/* Along with the sum of the logits. With AVX2 there is too much to do then for a page more or less to matter. */
static ALWAYS_INLINE struct distance overlapping_even(enum xent_fetch fetch)
{
    if (fetch == XENT_FETCH_EARLY)
        return early_long;
    return VW == 16 && fetch == XENT_FETCH_PAGES ? overlapping_pages : overlapping_in_order;
}

/* Where nothing overlaps, measured on Zen 4: 4 % in place, and 2 to 9 % of a forward of so many classes with AVX-512;
   others lose 3 to 10 %, with the output elsewhere 15 %. */
static const struct distance page_fetch = {.l1 = PAGE};
static ALWAYS_INLINE bool fetches_forward(size_t classes)
{
    return VW == 16 && classes >= 256 && classes <= 1024;
}

/* Where the four lines begin that are fetched together for a step of as many: at the second line of 256 aligned bytes,
   the fastest of four places by up to 16 % of a forward. Perhaps because a page's first line then comes alone, and the
   CPU's own prefetchers are on their way when others are asked for. */
static ALWAYS_INLINE const float *line_of_four(const float *x)
{
    const uintptr_t four_lines = 4 * LINE * sizeof *x;
    return STEP == 4 * LINE ? (const float *)((uintptr_t)x & -four_lines) + LINE : x;
}

/* Memory is read by as many streams at once as there are PAGES: while the lines of a block of pages are used, those of
   the next one are fetched, line n of them from page n % PAGES. On Ice Lake that is faster than any reading in order,
   by 10 % and more; but it begins with a block that has not been fetched, and ends with one that nobody wants. count, a
   constant, is PAGES lines at most. */
static ALWAYS_INLINE void fetch_pages(const float *x, size_t count)
{
    const uintptr_t page = PAGE, block = PAGES * page, at = (uintptr_t)x / sizeof *x;
    const uintptr_t n = at % block / count * (count / LINE);
    const uintptr_t first = (at / block + 1) * block + n % PAGES * page + n / PAGES * LINE;
    for (size_t i = 0; i < count / LINE; ++i)
        prefetch_l2((const float *)((first + i * page) * sizeof *x));
}

static ALWAYS_INLINE void fetch_ahead(const float *x, size_t count, struct distance ahead)
{
    for (size_t i = 0; ahead.l1 && i < count; i += LINE)
        prefetch(x + ahead.l1 + i);
    for (size_t i = 0; ahead.l2 && i < count; i += LINE)
        prefetch_l2((ahead.by_four ? line_of_four(x + ahead.l2) : x + ahead.l2) + i);
    if (ahead.by_pages)
        fetch_pages(x, count);
}

/* So many of count floats lie before the first whole cache line. */
static ALWAYS_INLINE size_t to_line(const float *p, size_t count)
{
    const size_t head = (0 - (uintptr_t)p / sizeof *p) % LINE;
    return head < count ? head : count;
}

/* Fetches the lines at either end that a row does not fill, well before ordinary stores to them: all that is streamed
   later would wait for these. */
static ALWAYS_INLINE void fetch_part_lines(const float *out, size_t count)
{
    if (to_line(out, LINE) != 0)
        __builtin_prefetch(out, 1);
    if (to_line(out + count, LINE) != 0)
        __builtin_prefetch(out + count, 1);
}

/* What is done to exponentials in a second pass: nothing but to multiply them; the same, but they are formed again and
   the products go past the caches; or what is taken off is in floats and of one kind (taking.h). */
enum second_kind { SCALE, AGAIN, TAKE_EVEN, TAKE_WEIGHTED, TAKE_SHARES };

/* What is left to do of the second pass over a row whose exponentials all lie in the window, for a multiplier that is
   plain (row_scale.h) and has its power of two in hi and lo. */
struct second {
    enum second_kind kind;
    float *out;         /* the exponentials; but where they are formed again, it begins a cache line */
    const float *along; /* logits to form them from, class weights, or probabilities */
    float B;
    struct taken shares;
    size_t left; /* classes */
    float hi, lo;
    float *target; /* where the target's gradient belongs, or NULL */
    float target_gradient;
    bool parted;  /* what goes past the caches is in two parts: left is what comes before the target's line */
    size_t after; /* classes after it */
};

/* e (hi + lo) for exponentials e in the window and a multiplier that keeps every product and correction normal: of the
   first left classes of a vector, or of all. */
static ALWAYS_INLINE void scale_vector(float *out, size_t left, float hi, float lo)
{
    const vf e = load_left(out, left);
    store_left(out, vfma(e, vset(hi), vmul(e, vset(lo))), left);
}

/* The same of count classes. */
static NOINLINE void scale_plain(float *out, size_t count, float hi, float lo)
{
    size_t j = 0;
    for (; j + VW <= count; j += VW)
        scale_vector(out + j, VW, hi, lo);
    if (j < count)
        scale_vector(out + j, count - j, hi, lo);
}

/* Gradients once more from logits that fit a mode. */
static ALWAYS_INLINE vf gradient_again(vf x, enum mode mode, struct frame frame, vf hi, vf lo)
{
    const vf z = measured(x, mode, vset(frame.ref)), in_window = unmask(z, mode, vset(frame.cut));
    const vf t = exp_round(in_window);
    const vf e = remask(exp_polynomial(vtable(vt_load(table), t), exp_reduce(in_window, t)), z, mode, vset(frame.cut));
    return vfma(e, hi, vmul(e, lo));
}

static ALWAYS_INLINE vf second_again(vf x, vf hi, vf lo)
{
    return gradient_again(x, WINDOW, near_frame, hi, lo);
}

/* One step. */
static ALWAYS_INLINE void second_scale(float *out, float hi, float lo, struct distance ahead)
{
    for (int i = 0; i < STEP; i += LINE)
        prefetch(out + ahead.scaled + i);
    for (int i = 0; i < STEP; i += VW)
        scale_vector(out + i, VW, hi, lo);
}

/* One step, or one line. */
static ALWAYS_INLINE void second_stream(const float *x, float *out, int classes, float hi, float lo,
                                        struct distance ahead)
{
    for (int i = 0; ahead.again && i < classes; i += LINE)
        prefetch(x + ahead.again + i);
    for (int i = 0; i < classes; i += VW)
        vstream(out + i, second_again(vload(x + i), vset(hi), vset(lo)));
}

/* The step of a second pass of some kind. */
static ALWAYS_INLINE void second_step(float *out, const float *along, enum second_kind kind, float hi, float lo,
                                      float B, const struct taken *shares, struct distance ahead)
{
    if (kind == SCALE)
        second_scale(out, hi, lo, ahead);
    else if (kind == AGAIN)
        second_stream(along, out, STEP, hi, lo, ahead);
    else
        take_inline(out, STEP, true, hi, lo, B, kind == TAKE_WEIGHTED ? along : NULL,
                    kind == TAKE_SHARES ? along : NULL, shares);
}

static ALWAYS_INLINE void second_advance(struct second *s, size_t classes)
{
    s->out += classes;
    s->along = s->along ? s->along + classes : NULL;
    s->left -= classes;
}

/* So many classes, less than a line, that are formed again and do not fill one. */
static ALWAYS_INLINE void second_part_of_line(struct second *s, size_t classes)
{
    for (size_t j = 0; j < classes; j += VW)
        store_left(s->out + j, second_again(load_left(s->along + j, classes - j), vset(s->hi), vset(s->lo)),
                   classes - j);
    second_advance(s, classes);
}

static ALWAYS_INLINE void second_lines(struct second *s)
{
    for (; s->left >= LINE; second_advance(s, LINE))
        second_stream(s->along, s->out, LINE, s->hi, s->lo, no_fetch);
}

/* The last lines before the target's, and that with its gradient in it: to store it afterwards would bring the line
   back. Then what is left is the rest. */
static NOINLINE void second_target(struct second *s)
{
    float line[LINE] __attribute__((aligned(64)));
    second_lines(s);
    for (int i = 0; i < LINE; i += VW)
        vstore(line + i, second_again(vload(s->along + i), vset(s->hi), vset(s->lo)));
    line[s->target - s->out] = s->target_gradient;
    for (int i = 0; i < LINE; i += VW)
        vstream(s->out + i, vload(line + i));
    s->left = LINE;
    second_advance(s, LINE);
    s->left = s->after;
    s->target = NULL;
    s->parted = false;
}

/* A second pass that goes past the caches begins with what lies before the first whole line, and is in two parts, with
   the target's line between them, if that is a whole one. */
static NOINLINE void second_begin_again(struct second *s)
{
    second_part_of_line(s, to_line(s->out, s->left));
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
    if (s->kind == AGAIN) {
        second_lines(s);
        second_part_of_line(s, s->left);
    } else if (s->kind == SCALE) {
        scale_plain(s->out, s->left, s->hi, s->lo);
    } else if (s->kind == TAKE_SHARES) {
        take_shares(s->out, s->left, true, s->hi, s->lo, s->along, &s->shares);
    } else {
        take_even(s->out, s->left, true, s->hi, s->lo, s->B, s->along);
    }
    if (s->target)
        *s->target = s->target_gradient;
}

#endif
