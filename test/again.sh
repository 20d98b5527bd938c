# To be sourced: one more try for what of `go test` failed.

# What a log says failed, as TEST PACKAGE, without a package where a test binary ran by itself.
# Fails where more failed than tests: what does not compile, a panic, a data race, or a log that ends in
# the midst of a test.
failed_in() { # log
  awk '
    /^--- FAIL: / { name[n++] = $3 }
    /^panic: |^fatal error: |WARNING: DATA RACE|race detected during execution/ { worse = 1 }
    /^FAIL$/ { ended = 1 }
    /^FAIL[ \t]/ {
      if (!n || !ended) worse = 1
      for (i = 0; i < n; i++) print name[i], $2
      n = ended = 0
    }
    END {
      if (n && !ended) worse = 1
      for (i = 0; i < n; i++) print name[i]
      exit worse
    }
  ' "$1"
}

# What waits for other programs and machines fails now and then for reasons of theirs. What failed has
# one more chance, alone; both tries are told of, and the first is counted as unsteady. More than three
# failures are no accident.
again() { # log, command that is called with a test and its package...
  local log=$1 names test pkg
  shift
  names=$(failed_in "$log") && [[ -n $names ]] && (($(wc -l <<<"$names") <= 3)) || return 1
  while read -r test pkg; do
    echo "== once more, alone: ${pkg:+$pkg }$test"
    "$@" "$test" "$pkg" </dev/null || return 1
  done <<<"$names"
  sed -i 's/^\( *\)--- FAIL:/\1--- UNSTEADY:/; s/^FAIL/UNSTEADY/' "$log"
}
