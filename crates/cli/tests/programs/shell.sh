# Bash and dash: traps, here-documents, process substitution, arrays, job control.
# needs: bash dash

trap 'echo "left with $?"' EXIT
(
    trap 'echo caught TERM; exit 7' TERM
    kill -TERM $BASHPID
    echo not reached
) || echo "status $?"
trap 'echo caught USR1' USR1
kill -USR1 $$
trap - USR1
( set +e; trap 'echo "error on a line"' ERR; false; true )

cat <<-TEXT
	a here-document with $((6 * 7)) and ${HOME:+a home}
	TEXT
cat <<<"a here-string"
diff <(printf '1\n2\n3\n') <(printf '1\nB\n3\n') || true
paste <(seq 3) <(seq 3 -1 1) | tee >(wc -l >lines) | tail -n 1
while [ ! -s lines ]; do sleep 0.01; done
cat lines

declare -A ages=([ann]=31 [bob]=42)
names=("${!ages[@]}")
printf '%s\n' "${names[@]}" | sort
echo "${#names[@]} ${ages[bob]}"
(set -o pipefail; false | true) || echo "pipefail $?"
coproc bc_like { while read -r a b; do echo $((a + b)); done; }
echo 2 40 >&"${bc_like[1]}"
read -r sum <&"${bc_like[0]}"
echo "coproc $sum"
exec {bc_like[1]}>&-
wait

for n in 3 1 2; do (sleep 0.0$n; exit "$n") & jobs+=($!); done
for job in "${jobs[@]}"; do wait "$job" || printf 'job %s ' $?; done
echo
exec 5<>file
echo through a descriptor >&5
exec 5>&-
read -r -t 5 words <file
echo "$words"
read -r -t 0.05 nothing < <(sleep 1) || echo "read timed out: $(($? > 128))"
ulimit -n 64 && ulimit -n
(umask 027; : >masked; stat -c %a masked)
printf '%q %05.2f %x\n' 'two words' 3.14159 255

dash -c 'f() { local n=$1; [ "$n" -le 1 ] && echo 1 || echo $((n * $(f $((n - 1))))); }; f 10'
dash -c 'trap "echo dash was here" EXIT; exit 3' || echo "dash $?"
dash -c 'kill -KILL $$' || echo "killed $?"
