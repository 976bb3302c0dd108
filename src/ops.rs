//! The ops room.
