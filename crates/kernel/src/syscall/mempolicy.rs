//! Memory policies and nodes (numa(7)), as Linux has them on a machine with one node.

use lg_abi::Errno;
use lg_abi::raw::general::CAP_SYS_NICE;
use lg_platform::{UserAddr, UserRange};

use super::Ctx;
use super::memory::{page_range, rounded_range};
use crate::PAGE_BYTES;
use crate::task::{MemoryPolicy, SysResult, Tid};

const MPOL_DEFAULT: u32 = 0;
const MPOL_PREFERRED: u32 = 1;
const MPOL_BIND: u32 = 2;
const MPOL_LOCAL: u32 = 4;
const MPOL_PREFERRED_MANY: u32 = 5;
/// The first number that is no mode.
const MPOL_MAX: u32 = 7;

const MPOL_F_STATIC_NODES: u32 = 1 << 15;
const MPOL_F_RELATIVE_NODES: u32 = 1 << 14;
const MPOL_F_NUMA_BALANCING: u32 = 1 << 13;
const MODE_FLAGS: u32 = MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES | MPOL_F_NUMA_BALANCING;

const MPOL_F_NODE: u64 = 1;
const MPOL_F_ADDR: u64 = 2;
const MPOL_F_MEMS_ALLOWED: u64 = 4;

const MPOL_MF_STRICT: u64 = 1;
const MPOL_MF_MOVE: u64 = 2;
const MPOL_MF_MOVE_ALL: u64 = 4;

/// Nodes that a mask can name.
const MAX_NODES: u64 = 1024;
/// The set of the nodes that there are: node 0.
const NODES: u64 = 1;

/// Reads a set of nodes; nodes that no machine can have are EINVAL. Only node 0 is told apart from the others.
///
/// Errors: EINVAL, EFAULT.
fn read_nodes(ctx: &Ctx<'_>, addr: u64, max_node: u64) -> Result<Nodes, Errno> {
    let bits = max_node.wrapping_sub(1);
    if bits == 0 || addr == 0 {
        return Ok(Nodes::default());
    }
    if bits > PAGE_BYTES * 8 {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; (bits.div_ceil(64) * 8) as usize];
    ctx.read_bytes(addr, &mut bytes)?;
    let mut nodes = Nodes::default();
    for node in 0..bits {
        if bytes[(node / 8) as usize] >> (node % 8) & 1 != 0 {
            match node {
                0 => nodes.has_node_0 = true,
                node if node >= MAX_NODES => return Err(Errno::EINVAL),
                _ => nodes.has_others = true,
            }
        }
    }
    Ok(nodes)
}

#[derive(Clone, Copy, Default)]
struct Nodes {
    has_node_0: bool,
    has_others: bool,
}

impl Nodes {
    fn is_empty(self) -> bool {
        !self.has_node_0 && !self.has_others
    }
}

/// Checks a mode and its nodes, and returns the policy. Errors: EINVAL, EFAULT.
fn read_policy(ctx: &Ctx<'_>, mode: u64, addr: u64, max_node: u64) -> Result<MemoryPolicy, Errno> {
    let (flags, kind) = (mode as u32 & MODE_FLAGS, mode as u32 & !MODE_FLAGS);
    let both = MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES;
    let balances = flags & MPOL_F_NUMA_BALANCING != 0;
    if kind >= MPOL_MAX
        || flags & both == both
        || (balances && ![MPOL_BIND, MPOL_PREFERRED_MANY].contains(&kind))
    {
        return Err(Errno::EINVAL);
    }
    let nodes = read_nodes(ctx, addr, max_node)?;
    let wants_nodes = match kind {
        MPOL_DEFAULT => false,
        MPOL_LOCAL if flags != 0 => return Err(Errno::EINVAL),
        MPOL_LOCAL => false,
        MPOL_PREFERRED if nodes.is_empty() && flags & both != 0 => return Err(Errno::EINVAL),
        MPOL_PREFERRED if nodes.is_empty() => return Ok(MemoryPolicy { mode: MPOL_LOCAL, nodes: 0 }),
        _ => true,
    };
    // Nodes that are not there are left out, and one must be left where the mode wants any.
    let suits = if wants_nodes { nodes.has_node_0 } else { nodes.is_empty() };
    if !suits {
        return Err(Errno::EINVAL);
    }
    Ok(MemoryPolicy { mode: kind | flags, nodes: if wants_nodes { NODES } else { 0 } })
}

pub(super) fn sys_set_mempolicy(ctx: &mut Ctx<'_>, [mode, nodes, max_node, ..]: [u64; 6]) -> SysResult {
    let policy = read_policy(ctx, mode, nodes, max_node)?;
    ctx.task_mut().memory_policy = policy;
    Ok(0)
}

pub(super) fn sys_get_mempolicy(
    ctx: &mut Ctx<'_>,
    [mode_addr, nodes_addr, max_node, addr, flags, _]: [u64; 6],
) -> SysResult {
    if nodes_addr != 0 && max_node < 1 {
        return Err(Errno::EINVAL.into());
    }
    if flags & !(MPOL_F_NODE | MPOL_F_ADDR | MPOL_F_MEMS_ALLOWED) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let policy = ctx.task().memory_policy;
    let has = |flag| flags & flag != 0;
    let (mode, nodes) = if has(MPOL_F_MEMS_ALLOWED) {
        if has(MPOL_F_NODE) || has(MPOL_F_ADDR) {
            return Err(Errno::EINVAL.into());
        }
        (MPOL_DEFAULT, NODES)
    } else if has(MPOL_F_ADDR) {
        let mapped = ctx.task().mm.borrow().area_at(UserAddr(addr)).is_some();
        if !mapped {
            return Err(Errno::EFAULT.into());
        }
        // The node of the page is 0, and so is the mode of an area without a policy.
        (MPOL_DEFAULT, 0)
    } else if addr != 0 || has(MPOL_F_NODE) {
        return Err(Errno::EINVAL.into());
    } else {
        (policy.mode, policy.nodes)
    };
    ctx.copy_out_opt(mode_addr, &mode)?;
    if nodes_addr != 0 {
        write_nodes(ctx, nodes_addr, max_node, nodes)?;
    }
    Ok(0)
}

/// Writes a set of nodes. Errors: EINVAL, EFAULT.
fn write_nodes(ctx: &Ctx<'_>, addr: u64, max_node: u64, nodes: u64) -> Result<(), Errno> {
    let bytes = max_node.wrapping_sub(1).checked_next_multiple_of(64).ok_or(Errno::EINVAL)? / 8;
    if bytes > PAGE_BYTES {
        return Err(Errno::EINVAL);
    }
    let mut mask = vec![0; bytes as usize];
    if let Some(first) = mask.first_mut() {
        *first = nodes as u8;
    }
    ctx.write_bytes(addr, &mask)
}

pub(super) fn sys_mbind(ctx: &mut Ctx<'_>, [addr, len, mode, nodes, max_node, flags]: [u64; 6]) -> SysResult {
    read_policy(ctx, mode, nodes, max_node)?;
    if flags & !(MPOL_MF_STRICT | MPOL_MF_MOVE | MPOL_MF_MOVE_ALL) != 0 {
        return Err(Errno::EINVAL.into());
    }
    if flags & MPOL_MF_MOVE_ALL != 0 && !ctx.task().creds.has_capability(CAP_SYS_NICE) {
        return Err(Errno::EPERM.into());
    }
    let beyond = |errno| if errno == Errno::ENOMEM { Errno::EFAULT } else { errno };
    let range = rounded_range(addr, len, Errno::EINVAL).map_err(beyond)?;
    if !range.is_empty() && !ctx.task().mm.borrow().is_mapped(range) {
        return Err(Errno::EFAULT.into());
    }
    Ok(0)
}

pub(super) fn sys_set_mempolicy_home_node(
    _ctx: &mut Ctx<'_>,
    [addr, len, node, flags, ..]: [u64; 6],
) -> SysResult {
    let range: UserRange = page_range(addr, len).map_err(|_| Errno::EINVAL)?;
    if flags != 0 || node != 0 {
        return Err(Errno::EINVAL.into());
    }
    // No area has a policy that could have a home.
    if range.is_empty() { Ok(0) } else { Err(Errno::ENOENT.into()) }
}

/// Returns the process that a call names; 0 is the caller's. Errors: ESRCH, EPERM.
fn process_of(ctx: &Ctx<'_>, pid: u64) -> Result<Tid, Errno> {
    if pid == 0 {
        return Ok(ctx.tid);
    }
    let tid = Tid(u32::try_from(pid as i32).map_err(|_| Errno::ESRCH)?);
    let task = ctx.kernel.tasks.get(&tid).ok_or(Errno::ESRCH)?;
    let caller = ctx.task();
    let may = task.tgid == caller.tgid
        || task.creds.uid == caller.creds.uid
        || caller.creds.has_capability(CAP_SYS_NICE);
    if may { Ok(tid) } else { Err(Errno::EPERM) }
}

pub(super) fn sys_migrate_pages(ctx: &mut Ctx<'_>, [pid, max_node, old, new, ..]: [u64; 6]) -> SysResult {
    read_nodes(ctx, old, max_node)?;
    let new = read_nodes(ctx, new, max_node)?;
    process_of(ctx, pid)?;
    if new.has_others && !ctx.task().creds.has_capability(CAP_SYS_NICE) {
        return Err(Errno::EPERM.into());
    }
    // All pages are where they can be.
    if new.has_node_0 { Ok(0) } else { Err(Errno::EINVAL.into()) }
}

/// Most pages that one move_pages(2) asks about.
const MAX_PAGES: u64 = 1 << 20;

pub(super) fn sys_move_pages(
    ctx: &mut Ctx<'_>,
    [pid, count, pages, nodes, status, flags]: [u64; 6],
) -> SysResult {
    if flags & !(MPOL_MF_MOVE | MPOL_MF_MOVE_ALL) != 0 {
        return Err(Errno::EINVAL.into());
    }
    if flags & MPOL_MF_MOVE_ALL != 0 && !ctx.task().creds.has_capability(CAP_SYS_NICE) {
        return Err(Errno::EPERM.into());
    }
    let tid = process_of(ctx, pid)?;
    if count > MAX_PAGES {
        return Err(Errno::E2BIG.into());
    }
    let mm = ctx.kernel.tasks.get(&tid).ok_or(Errno::ESRCH)?.mm.clone();
    for index in 0..count {
        let page: u64 = ctx.copy_in(pages.wrapping_add(index * 8))?;
        if nodes != 0 && ctx.copy_in::<i32>(nodes.wrapping_add(index * 4))? != 0 {
            return Err(Errno::ENODEV.into());
        }
        let answer = {
            let mm = mm.borrow();
            let page = UserAddr(page).page_floor();
            match mm.area_at(page) {
                None => -Errno::EFAULT.number(),
                Some(_) if mm.is_resident(page) => 0,
                Some(_) => -Errno::ENOENT.number(),
            }
        };
        ctx.copy_out(status.wrapping_add(index * 4), &answer)?;
    }
    Ok(0)
}
