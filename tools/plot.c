/* Draws a curve of losses over steps: most of the way down is in the first few, so their axis is logarithmic. */
#include "plot.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

size_t plot_column(size_t step, size_t last)
{
    return (size_t)lround(log1p((double)step) / log1p((double)last) * (PLOT_COLUMNS - 1));
}

static void draw_axis(size_t last)
{
    char ticks[PLOT_COLUMNS + 1], labels[PLOT_COLUMNS + 16];
    memset(ticks, '-', PLOT_COLUMNS);
    memset(labels, ' ', sizeof labels);
    ticks[PLOT_COLUMNS] = '\0';
    size_t length = 0;
    for (size_t step = 0; step <= last; step = step == 0 ? 1 : 10 * step) {
        size_t column = plot_column(step, last);
        char number[24];
        int digits = snprintf(number, sizeof number, "%zu", step);
        ticks[column] = '+';
        if (digits > 0 && column + (size_t)digits < sizeof labels) {
            memcpy(labels + column, number, (size_t)digits);
            length = column + (size_t)digits;
        }
    }
    printf("      +%s\n       %.*s step\n", ticks, (int)length, labels);
}

void plot_curve(const struct curve_point *points, size_t count, double floor)
{
    char canvas[PLOT_ROWS][PLOT_COLUMNS + 1];
    double top = floor, bottom = floor;
    size_t last = points[count - 1].step;
    for (size_t i = 0; i < count; i++) {
        top = fmax(top, points[i].loss);
        bottom = fmin(bottom, points[i].loss);
    }
    double per_row = fmax(top - bottom, 1e-6) / (PLOT_ROWS - 1);

    memset(canvas, ' ', sizeof canvas);
    memset(canvas[lround((top - floor) / per_row)], '.', PLOT_COLUMNS);
    for (size_t i = 0; i < count; i++)
        canvas[lround((top - points[i].loss) / per_row)][plot_column(points[i].step, last)] = '*';
    for (size_t row = 0; row < PLOT_ROWS; row++) {
        size_t length = PLOT_COLUMNS;
        while (length > 0 && canvas[row][length - 1] == ' ')
            length--;
        printf("%5.2f |%.*s\n", top - (double)row * per_row, (int)length, canvas[row]);
    }
    draw_axis(last);
}
