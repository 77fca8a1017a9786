//! Extended attributes.
//!
//! Source: getxattr(2), xattr(7); `sockfs_xattr_handlers` in `net/socket.c`, v6.18.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::Result;
use nix::errno::Errno;

/// The name of a socket's protocol as the kernel spells it (`TCP`, `UNIX-STREAM`, `NETLINK`), for a path that leads to the socket:
/// `/proc/PID/fd/N`. `EOPNOTSUPP`: it is no socket.
pub fn socket_protocol(path: &Path) -> Result<String> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let mut name = [0u8; 64];
    // SAFETY: two strings that end in NUL, and a buffer with its length.
    let result = unsafe {
        libc::getxattr(path.as_ptr(), c"system.sockprotoname".as_ptr(), name.as_mut_ptr().cast(), name.len())
    };
    let length = usize::try_from(Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)?;
    Ok(String::from_utf8_lossy(&name[..length]).trim_end_matches('\0').to_owned())
}
