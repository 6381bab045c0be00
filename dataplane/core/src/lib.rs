//! The media engine of rtpbridge, without IO.
