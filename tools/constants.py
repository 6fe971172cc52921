#!/usr/bin/env python3
"""Derive the constants of kernels/constants.h: table, polynomial, reduction, centre. Needs mpmath and NumPy."""
import sys

import mpmath as mp
import numpy as np

mp.mp.dps = 40


def float_hex(value):
    return float(np.float32(float(value))).hex()


def table():
    """The T[0] in [1, 2^(1/8)) for which T[0] 2^(k/8), rounded, keeps T[k] / T[0] closest to 2^(k/8) for all k."""
    first = np.arange(1 << 23, int((1 << 23) * 2 ** 0.125) + 1, dtype=np.int64).astype(np.longdouble)
    low, high = np.zeros_like(first), np.zeros_like(first)
    for k in range(1, 8):
        exact = first * np.longdouble(2) ** (np.longdouble(k) / 8)
        error = (np.rint(exact) - exact) / exact
        low, high = np.minimum(low, error), np.maximum(high, error)
    best = int(np.argmin(high - low))
    spread = float((high - low)[best] / 2 * 2 ** 24)
    entries = [int(np.rint(first[best] * np.longdouble(2) ** (np.longdouble(k) / 8))) for k in range(8)]
    return entries, spread


def polynomial(half_width, degree=3):
    """Remez: p minimising max |p(r) exp(-r) - 1| on [-half_width, half_width]; returned with p(0) scaled to 1."""
    n = degree + 2
    nodes = [-half_width * mp.cos(mp.pi * i / (n - 1)) for i in range(n)]
    grid = [half_width * (mp.mpf(i) / 200 - 1) for i in range(401)]
    for _ in range(20):
        matrix, ones = mp.matrix(n, n), mp.matrix([1] * n)
        for i, r in enumerate(nodes):
            for j in range(degree + 1):
                matrix[i, j] = r ** j * mp.exp(-r)
            matrix[i, degree + 1] = (-1) ** i
        solution = mp.lu_solve(matrix, ones)
        errors = [sum(solution[j] * r ** j for j in range(degree + 1)) * mp.exp(-r) - 1 for r in grid]
        peaks = []
        for r, e in zip(grid, errors):
            if peaks and mp.sign(e) == mp.sign(peaks[-1][1]):
                if abs(e) > abs(peaks[-1][1]):
                    peaks[-1] = (r, e)
            else:
                peaks.append((r, e))
        if len(peaks) != n:
            sys.exit("Remez exchange lost an extremum")
        nodes = [r for r, _ in peaks]
    return [solution[j] / solution[0] for j in range(degree + 1)], max(abs(e) for e in errors)


def main():
    entries, spread = table()
    for k, entry in enumerate(entries):
        print(f"T[{k}]       bits 0x{0x3f800000 | entry & 0x7fffff:08x}   {float_hex(mp.mpf(entry) / 2 ** 23)}")
    print(f"            T[k] / T[0] within {spread:.4f} * 2^-24 of their common centre")
    step = mp.log(2) / 8
    high = mp.mpf(float(np.float32(float(step))))
    print(f"8 log2(e)   {float_hex(8 / mp.log(2))}")
    print(f"ln(2)/8     {float_hex(high)} + {float_hex(step - high)}")
    coefficients, error = polynomial(step / 2 * mp.mpf("1.0006"))
    print(f"C1, C2, C3  {', '.join(float_hex(c) for c in coefficients[1:])}   error {mp.nstr(error * 2 ** 24, 4)} * 2^-24")
    # Halfway between the extremes of the finished float function over exp(x), found over every float in the window.
    centre = mp.mpf(float.fromhex("0x1.16747c48ddb1ap+0"))
    print(f"K, ln(K)    {float(centre).hex()}, {float(mp.log(centre)).hex()}")


main()
