//! The data_dir room.
