//! Individuals outside the world's tables, for personalisation to learn.
