//! The only crate that says `unsafe`: one file per family of system calls, behind safe functions.
