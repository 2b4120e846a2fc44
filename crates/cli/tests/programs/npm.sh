# npm: packs a package, installs it from the tarball in another, and runs its command.
# needs: node npm

export npm_config_offline=true npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false npm_config_loglevel=error
mkdir -p library/bin user && cd library
echo '{ "name": "library", "version": "1.0.0", "main": "index.js", "bin": { "say": "bin/say.js" } }' >package.json
echo 'exports.double = (n) => 2 * n;' >index.js
printf '#!/usr/bin/env node\nconsole.log("said", require("..").double(21));\n' >bin/say.js
npm pack --silent
cd ../user
echo '{ "name": "user", "version": "1.0.0", "scripts": { "start": "say", "test": "node -e \"process.exit(3)\"" } }' >package.json
npm install --silent ../library/library-1.0.0.tgz
node -p 'require("library").double(4)'
npm run --silent start
npm test --silent >/dev/null 2>&1 || echo "test $?"
npm ls --depth=0 | grep -o 'library@1.0.0'
