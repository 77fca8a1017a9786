//! The image.
#![forbid(unsafe_code)]
