//! Parts of the simulation: the model disk, and the rig around the core.

pub mod disk;
pub mod rig;
