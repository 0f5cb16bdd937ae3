//! The derive macro behind node declarations.
