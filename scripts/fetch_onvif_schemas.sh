#!/usr/bin/env bash
# Fetches the XML schemas with which tests/onvif.rs checks documents, into .deps/onvif: those of ONVIF and of the
# standards that they use, from two packages of PyPI. A second run does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
target=.deps/onvif
[ -f "$target/all.xsd" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download -q --no-deps --no-binary onvif-zeep -d "$work" onvif-client==0.0.4 onvif-zeep==0.2.12
(cd "$work" && python3 -m zipfile -e onvif_client-*.whl . && tar xzf onvif_zeep-*.tar.gz)
mkdir -p "$target"
cp "$work"/onvif/wsdl/ver10/schema/{common,metadatastream}.xsd "$work"/onvif_zeep-*/wsdl/{b-2,bf-2,r-2,t-1,ws-addr,xml}.xsd "$target"
# Of onvif.xsd only the definitions of messages: xmllint rejects others, whose content models are ambiguous.
python3 - "$work/onvif/wsdl/ver10/schema/onvif.xsd" > "$target/message.xsd" <<'PY'
import sys
import xml.etree.ElementTree as ET
xs = "{http://www.w3.org/2001/XMLSchema}"
ET.register_namespace("xs", xs[1:-1])
schema = ET.parse(sys.argv[1]).getroot()
wanted = {"Message", "MessageExtension", "PropertyOperation", "ItemList", "ItemListExtension"}
kept = [e for e in schema if e.get("name") in wanted]
print('<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:tt="http://www.onvif.org/ver10/schema" '
      'targetNamespace="http://www.onvif.org/ver10/schema" elementFormDefault="qualified">')
for e in kept:
    print(ET.tostring(e, encoding="unicode"))
print("</xs:schema>")
PY
cat > "$target/all.xsd" <<'XSD'
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="http://www.onvif.org/ver10/schema" elementFormDefault="qualified">
  <xs:include schemaLocation="metadatastream.xsd"/>
  <xs:include schemaLocation="message.xsd"/>
</xs:schema>
XSD
# Where the schemas' addresses are found without a network.
{
  echo '<catalog xmlns="urn:oasis:names:tc:entity:xmlns:xml:catalog">'
  for entry in \
    docs.oasis-open.org/wsn/b-2.xsd=b-2.xsd docs.oasis-open.org/wsn/t-1.xsd=t-1.xsd \
    docs.oasis-open.org/wsrf/bf-2.xsd=bf-2.xsd docs.oasis-open.org/wsrf/r-2.xsd=r-2.xsd \
    www.w3.org/2005/08/addressing/ws-addr.xsd=ws-addr.xsd www.w3.org/2001/xml.xsd=xml.xsd; do
    echo "  <system systemId=\"http://${entry%%=*}\" uri=\"${entry#*=}\"/>"
    echo "  <uri name=\"http://${entry%%=*}\" uri=\"${entry#*=}\"/>"
  done
  echo '</catalog>'
} > "$target/catalog.xml"
