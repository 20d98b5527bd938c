package sdp

import "testing"

func TestMaxPtime(t *testing.T) {
	for line, want := range map[string]int{"": 0, "a=maxptime:20\r\n": 20, "a=maxptime: 60 \r\n": 60, "a=maxptime:-20\r\n": 0, "a=maxptime:x\r\n": 0, "a=maxptime:70000\r\n": 0} {
		r, err := Parse("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"+line, Phone)
		if err != nil || r.MaxPtime != want {
			t.Errorf("%q: %v, %v", line, r, err)
		}
	}
}
