//! The proc room.
