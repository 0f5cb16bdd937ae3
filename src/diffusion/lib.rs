//! Everything with a tensor. Knows no graphs, folders or HTTP.
