//! CPU kernels over plain slices of memory. Knows no models.
