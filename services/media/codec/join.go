package codec

// Join writes one packet of several of 20 ms, one after the other, to dst and returns its length; 0 when they
// don't go into one. Parts of Opus must have one frame each of the same kind (RFC 6716 §3.2).
func Join(id ID, dst []byte, parts [][]byte) int {
	if id != Opus {
		n := 0
		for _, p := range parts {
			if len(dst)-n < len(p) {
				return 0
			}
			n += copy(dst[n:], p)
		}
		return n
	}
	if len(parts) == 1 {
		if len(dst) < len(parts[0]) {
			return 0
		}
		return copy(dst, parts[0])
	}
	if len(parts) == 0 || len(parts) > 6 {
		return 0
	}
	size := 2 + 2*len(parts)
	for _, p := range parts {
		if len(p) == 0 || p[0] != parts[0][0] || p[0]&3 != 0 {
			return 0
		}
		size += len(p)
	}
	if len(dst) < size {
		return 0
	}
	// Code 3, of frames that differ in length: all lengths but the last one's, then the frames.
	dst[0], dst[1] = parts[0][0]|3, 0x80|byte(len(parts))
	n := 2
	for _, p := range parts[:len(parts)-1] {
		switch l := len(p) - 1; {
		case l < 252:
			dst[n] = byte(l)
			n++
		default:
			dst[n] = 252 + byte(l&3)
			dst[n+1] = byte((l - int(dst[n])) >> 2)
			n += 2
		}
	}
	for _, p := range parts {
		n += copy(dst[n:], p[1:])
	}
	return n
}
