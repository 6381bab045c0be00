//! Vocabulary, configuration and the wire between the two rtpbridge processes.
