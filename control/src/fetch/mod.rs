//! Files for playback that come from URLs: downloaded once, kept in `cache_dir`, handed to the
//! dataplane by name.

pub mod cache;

mod download;
mod entries;
