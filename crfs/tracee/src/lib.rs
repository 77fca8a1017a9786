//! Type-state ptrace, the injector and remote memory.
