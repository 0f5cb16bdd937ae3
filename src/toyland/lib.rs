//! Toyland, the drawn world that the embedded model is trained on. Knows no tensors.
//!
//! [`world`] lists what exists, [`scene`] picks from it, [`draw`] makes the picture and [`captions`] says what is on
//! it. Everything follows from one seed, so a data set is a command line.

pub mod captions;
pub mod draw;
pub mod personal;
pub mod random;
pub mod scene;
pub mod world;
