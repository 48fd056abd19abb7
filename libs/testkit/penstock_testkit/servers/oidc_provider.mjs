// A real OpenID Connect provider for tests: the npm package oidc-provider, with one public client and no passwords.
// Arguments: the port, and a JSON file with `jwks` (private keys) and `groups` (by user).
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [port, file] = process.argv.slice(2);
const require = createRequire(join(process.env.NODE_MODULES_OF, 'package.json'));
const { default: Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));
const { jwks, groups } = JSON.parse(readFileSync(file, 'utf8'));
const issuer = `http://127.0.0.1:${port}`;

const provider = new Provider(issuer, {
  jwks,
  clients: [
    {
      client_id: 'penstock',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token', 'authorization_code'],
      redirect_uris: ['http://127.0.0.1/callback'],
      response_types: ['code'],
    },
  ],
  claims: { openid: ['sub', 'groups'] },
  conformIdTokenClaims: false,
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, groups: groups[id] ?? [] }) }),
  features: {
    devInteractions: { enabled: true },
    deviceFlow: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => ({ scope: 'openid', audience: resource, accessTokenFormat: 'jwt' }),
    },
  },
  issueRefreshToken: () => true,
  ttl: { IdToken: 3600, AccessToken: 3600, DeviceCode: 600 },
  cookies: { keys: ['of the tests'] },
});
provider.listen(Number(port), '127.0.0.1');
