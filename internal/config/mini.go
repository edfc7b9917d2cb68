// SPDX-License-Identifier: BSD-3-Clause

//go:build mini

package config

import "errors"

// What providers and operators want the smallest build does not have: it would be
// 12 kB of the flash of a small router.

func readContacts(path string) ([]ContactFor, error) {
	if path != "" {
		return nil, errors.New("--contacts: this smallest build has one contact only")
	}
	return nil, nil
}

func (r *raw) posting(c *Config) error {
	if c.SendHTTP || c.SendHTTPS || r.trust != "strict" {
		return errors.New("--send: this smallest build sends by udp only")
	}
	if r.seal != "" && r.seal != "never" || len(r.sealKeys) > 0 {
		return errors.New("--seal: this smallest build cannot encrypt")
	}
	return nil
}

func (r *raw) exportersInterfaces(*Config) error {
	if len(r.exported) > 0 {
		return errors.New("--ifindex: this smallest build does not judge the sources of exported flows")
	}
	return nil
}
