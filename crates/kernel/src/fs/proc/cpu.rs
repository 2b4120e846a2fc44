//! What `/proc/cpuinfo` says: one processor, with the features that programs choose code by.

/// Adds the name to the list where the processor has the feature.
macro_rules! detected {
    ($list:ident, $($feature:tt => $name:literal,)*) => {
        $(if std::arch::is_x86_feature_detected!($feature) {
            $list.push($name);
        })*
    };
}

/// Returns the flags of the processor by the names that Linux has for them.
fn flags() -> Vec<&'static str> {
    let mut list = vec!["fpu", "tsc", "cx8", "cmov", "mmx", "fxsr", "sse", "sse2", "syscall", "nx", "lm"];
    detected!(list,
        "sse3" => "pni",
        "pclmulqdq" => "pclmulqdq",
        "ssse3" => "ssse3",
        "fma" => "fma",
        "cmpxchg16b" => "cx16",
        "sse4.1" => "sse4_1",
        "sse4.2" => "sse4_2",
        "movbe" => "movbe",
        "popcnt" => "popcnt",
        "aes" => "aes",
        "xsave" => "xsave",
        "avx" => "avx",
        "f16c" => "f16c",
        "rdrand" => "rdrand",
        "lzcnt" => "abm",
        "bmi1" => "bmi1",
        "avx2" => "avx2",
        "bmi2" => "bmi2",
        "avx512f" => "avx512f",
        "avx512dq" => "avx512dq",
        "rdseed" => "rdseed",
        "adx" => "adx",
        "avx512cd" => "avx512cd",
        "sha" => "sha_ni",
        "avx512bw" => "avx512bw",
        "avx512vl" => "avx512vl",
        "gfni" => "gfni",
        "vaes" => "vaes",
        "vpclmulqdq" => "vpclmulqdq",
    );
    list
}

/// Returns the text of `/proc/cpuinfo`.
pub fn cpuinfo() -> Vec<u8> {
    format!(
        "processor\t: 0\nvendor_id\t: LuminaGuard\ncpu family\t: 6\nmodel\t\t: 0\n\
         model name\t: LuminaGuard virtual CPU\nstepping\t: 0\nphysical id\t: 0\nsiblings\t: 1\n\
         core id\t\t: 0\ncpu cores\t: 1\napicid\t\t: 0\nfpu\t\t: yes\nfpu_exception\t: yes\n\
         cpuid level\t: 13\nwp\t\t: yes\nflags\t\t: {}\nclflush size\t: 64\ncache_alignment\t: 64\n\
         address sizes\t: 46 bits physical, 48 bits virtual\n\n",
        flags().join(" ")
    )
    .into_bytes()
}
