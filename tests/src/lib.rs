//! What victims and end-to-end tests share.
