//! From format 1, which grew for as long as nothing had been released: any image of it lacks what had not been thought of when it was
//! taken. Whatever was not carried then was refused then, so what is missing says "none of it".

use super::{Step, add};
use crate::layout::{
    self, CGROUPS, CONTENTS_SUMS, FILES, LOCKS, MANIFEST, MOUNTS, NAMESPACES, POSIX_MQ, SECCOMP, SYSV_SHM, UNNAMED,
};
use crate::types::Blob;
use crate::xstate::Xstate;
use serde_json::{Value, json};

pub(super) const STEP: Step =
    Step { new_files: &[CGROUPS, CONTENTS_SUMS, LOCKS, UNNAMED, MOUNTS, NAMESPACES, POSIX_MQ, SECCOMP], change };

/// Fields of a record, by the place in it where they stand (RFC 6901).
type Added = &'static [(&'static str, &'static str)];

const PROCESS: Added = &[(
    "",
    r#"{"parent_thread":null,"shares":{"memory":null,"descriptors":null,"directories":null,"signal_actions":null},
        "job_control":"running","first_thread_ended":null,"cwd_deleted":null}"#,
)];
const PROCESS_ATTR: Added =
    &[("", r#"{"memory":{"huge_pages":"default","merge":false,"mdwe":[],"lock_future":[]},"autogroup_nice":null}"#)];
const THREAD_ATTR: Added = &[
    (
        "",
        r#"{"controls":{"no_tsc":false,"no_cpuid":false,"memory_errors":"default","io_flusher":false,"syscall_dispatch":null},
            "login_uid":null,"directories":null}"#,
    ),
    ("/directories", r#"{"cwd_deleted":null}"#),
];
const DESCRIPTION: Added = &[
    ("", r#"{"owner":null}"#),
    ("/kind/regular", r#"{"if_changed":"default"}"#),
    ("/kind/directory", r#"{"listing":null,"deleted":null}"#),
    ("/kind/pipe", r#"{"packets":[]}"#),
    ("/kind/namespace", r#"{"process":null}"#),
];
const UNNAMED_FILE: Added = &[("/origin/memfd", r#"{"page_size":4096}"#)];
const SHARED_SEGMENT: Added = &[("", r#"{"page_size":4096}"#)];
const TERMINAL: Added = &[("", r#"{"console":null}"#)];

fn change(path: &str, record: &mut Value) {
    let parts: Vec<&str> = path.split('/').collect();
    let added = match parts[..] {
        [MANIFEST] => return namespaces(record),
        [FILES, name] if layout::parse_id(name).is_some() => {
            pending(record);
            pseudo(record);
            DESCRIPTION
        }
        [FILES, name] if layout::parse_tty(name).is_some() => TERMINAL,
        [FILES, "unnamed"] => UNNAMED_FILE,
        [SYSV_SHM] => SHARED_SEGMENT,
        [_, "process"] => PROCESS,
        [_, "attr"] => PROCESS_ATTR,
        [_, _, "attr"] => {
            seccomp(record);
            THREAD_ATTR
        }
        [_, _, "thread"] => return extended_state(record),
        [_, _, "timers"] => return timer(record),
        _ => return,
    };
    for (place, fields) in added {
        add(fields, record.pointer_mut(place));
    }
}

/// `host_net` was the one that a container could share.
fn namespaces(manifest: &mut Value) {
    let Some(container) = manifest.get_mut("container").and_then(Value::as_object_mut) else { return };
    match container.get("host_net").and_then(Value::as_bool) {
        Some(true) => container.insert("host_namespaces".to_owned(), json!(["net"])),
        Some(false) => container.insert("host_namespaces".to_owned(), json!([])),
        None => return,
    };
    container.remove("host_net");
    container.insert("loopback".to_owned(), json!(true));
}

/// The whole area stood there.
fn extended_state(thread: &mut Value) {
    let Some(state) = thread.get_mut("xstate") else { return };
    if let Ok(area) = serde_json::from_value::<Blob>(state.clone()) {
        *state = json!(Xstate::of(&area.0));
    }
}

/// The mode by its number: none but 0 was carried.
fn seccomp(attr: &mut Value) {
    if attr.get("seccomp") == Some(&json!(0)) {
        attr["seccomp"] = json!("none");
    }
}

/// Interval timers were the only ones.
fn timer(timer: &mut Value) {
    if timer.get("which").is_some() {
        *timer = json!({ "interval": timer.take() });
    }
}

/// Clients that wait to be accepted were carried as long as they had sent nothing. Who had connected was not told: pid 0 stands for nobody.
fn pending(description: &mut Value) {
    let pending = description.pointer_mut("/kind/unix_socket/link/listening/pending").and_then(Value::as_array_mut);
    for client in pending.into_iter().flatten() {
        *client = json!({ "client": client.take(), "connected": { "pid": 0, "uid": 0, "gid": 0 }, "queued": [] });
    }
    let pending = description.pointer_mut("/kind/inet_socket/link/listening/pending").and_then(Value::as_array_mut);
    for client in pending.into_iter().flatten() {
        *client = json!({ "client": { "open": client.take() }, "received": 0 });
    }
}

/// /proc was the one pseudo file system of which files were carried.
fn pseudo(description: &mut Value) {
    let Some(kind) = description.get_mut("kind").and_then(Value::as_object_mut) else { return };
    if let Some(mut file) = kind.remove("proc") {
        add(r#"{"file_system":"proc","at_end":false}"#, Some(&mut file));
        kind.insert("pseudo".to_owned(), file);
    }
}
