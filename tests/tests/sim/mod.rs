//! Parts of the simulation: the model log with its naive recount, the model disk, and the rig around the core.

pub mod disk;
pub mod log;
pub mod rig;
