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

/// Longest list of names, and longest value (XATTR_LIST_MAX, XATTR_SIZE_MAX; `include/uapi/linux/limits.h`).
const LONGEST: usize = 65536;

/// The names of the extended attributes of what stands at a path, symbolic links not followed. `EOPNOTSUPP`: the file system has none.
pub fn names(path: &Path) -> Result<Vec<Vec<u8>>> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let mut list = vec![0u8; LONGEST];
    // SAFETY: a string that ends in NUL, and a buffer with its length.
    let result = unsafe { libc::llistxattr(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    let length = usize::try_from(Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)?;
    let names = list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

/// The value of an extended attribute of what stands at a path, symbolic links not followed.
pub fn value(path: &Path, name: &[u8]) -> Result<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    let mut value = vec![0u8; LONGEST];
    // SAFETY: two strings that end in NUL, and a buffer with its length.
    let result = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)?);
    Ok(value)
}

/// Sets an extended attribute of what stands at a path, symbolic links not followed.
pub fn set(path: &Path, name: &[u8], value: &[u8]) -> Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    // SAFETY: two strings that end in NUL, and a buffer with its length.
    let result = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(drop)
}
