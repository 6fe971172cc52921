/* The demo's loss curve, drawn with characters. */
#ifndef XENT_TOOLS_PLOT_H
#define XENT_TOOLS_PLOT_H

#include <stddef.h>

struct curve_point {
    size_t step;
    double loss;
};

enum { PLOT_COLUMNS = 64, PLOT_ROWS = 14 };

/* The column of a step when the steps 0 to last are spread over the plot by log(1 + step). */
size_t plot_column(size_t step, size_t last);

/* Draw count points, in order of their steps, over a line at the height of floor. */
void plot_curve(const struct curve_point *points, size_t count, double floor);

#endif
