package account

import (
	"errors"
	"fmt"

	"gopkg.in/yaml.v3"
)

// Keys of config.yml, Jami's own. What else stands in the file is kept.
const (
	keyAlias      = "alias"
	keyDisplay    = "displayName"
	keyRendezvous = "rendezVous"
	keyName       = "registeredName"
	keyUsername   = "username"
	keyType       = "type"
	keyDeviceName = "Account.deviceName"
	keyReceipt    = "ringAccountReceipt"
	keyReceiptSig = "ringAccountReceiptSignature"
	keyTLS        = "tls"
	keyTLSCert    = "certificate"
	keyTLSKey     = "privateKey"

	keyHasPassword = "archiveHasPassword"

	keyManager      = "managerUri"
	keyManagerUser  = "managerUsername"
	keyManagerEnded = "managerEnded"        // of ours: why the server ended the device or the account
	keyManagerRoots = "managerCertificates" // of ours: PEM of who certifies the server
)

func marshalConfig(m map[string]any) ([]byte, error) {
	b, err := yaml.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("account settings: %w", err)
	}
	return b, nil
}

// binary is bytes that YAML shows as !!binary whatever they hold.
func binary(b []byte) *yaml.Node {
	n := new(yaml.Node)
	n.SetString(string(b))
	if n.Tag != "!!binary" { // by chance valid text
		n = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: string(b)}
	}
	return n
}

func putSettings(m map[string]any, s Settings) {
	m[keyAlias], m[keyDisplay], m[keyRendezvous] = s.Alias, s.Alias, s.Rendezvous
	if s.Name != "" {
		m[keyName] = s.Name
	}
}

// parseConfig reads config.yml. Missing settings have Jami's defaults: no alias,
// no rendezvous.
func parseConfig(b []byte) (m map[string]any, s Settings, receipt, sig string, err error) {
	if err = yaml.Unmarshal(b, &m); err != nil {
		return nil, s, "", "", err
	}
	text := func(key string) string {
		switch v := m[key].(type) {
		case nil:
			return ""
		case string:
			return v
		default:
			err = errors.Join(err, fmt.Errorf("%s is %T, want a text", key, v))
			return ""
		}
	}
	s.Alias, s.Name, receipt, sig = text(keyAlias), text(keyName), text(keyReceipt), text(keyReceiptSig)
	switch v := m[keyRendezvous].(type) {
	case nil:
	case bool:
		s.Rendezvous = v
	default:
		err = errors.Join(err, fmt.Errorf("%s is %T, want true or false", keyRendezvous, v))
	}
	return m, s, receipt, sig, err
}

func managedOf(m map[string]any) (out Managed) {
	out.Server, _ = m[keyManager].(string)
	out.User, _ = m[keyManagerUser].(string)
	out.Roots, _ = m[keyManagerRoots].(string)
	out.Ended, _ = m[keyManagerEnded].(string)
	return out
}
