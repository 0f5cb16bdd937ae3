//! Toyland, the drawn world that the embedded model is trained on. Knows no tensors.
