package media

import (
	"github.com/nats-io/nats.go"

	"github.com/parley-jami/parley/bus/contract"
)

func publishPCM(nc *nats.Conn, subject string, data []byte) error {
	m := nats.NewMsg(subject)
	m.Header.Set(contract.HeaderFormat, contract.FormatPCM48)
	m.Data = data
	if err := nc.PublishMsg(m); err != nil {
		return err
	}
	return nc.Flush()
}
