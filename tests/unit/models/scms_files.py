"""Small SCMS files, byte for byte as a publisher or a spreadsheet would write them. The 33 columns are the original's."""

from __future__ import annotations

import csv
import io

TITLES = [
    "ID", "Project Code", "PQ #", "PO / SO #", "ASN/DN #", "Country", "Managed By", "Fulfill Via", "Vendor INCO Term", "Shipment Mode",
    "PQ First Sent to Client Date", "PO Sent to Vendor Date", "Scheduled Delivery Date", "Delivered to Client Date",
    "Delivery Recorded Date", "Product Group", "Sub Classification", "Vendor", "Item Description", "Molecule/Test Type", "Brand",
    "Dosage", "Dosage Form", "Unit of Measure (Per Pack)", "Line Item Quantity", "Line Item Value", "Pack Price", "Unit Price",
    "Manufacturing Site", "First Line Designation", "Weight (Kilograms)", "Freight Cost (USD)", "Line Item Insurance (USD)",
]  # fmt: skip

API_TITLES = [
    "id", "project_code", "pq_", "po_so_", "asn_dn_", "country", "managed_by", "fulfill_via", "vendor_inco_term", "shipment_mode",
    "pq_first_sent_to_client_date", "po_sent_to_vendor_date", "scheduled_delivery_date", "delivered_to_client_date",
    "delivery_recorded_date", "product_group", "sub_classification", "vendor", "item_description", "molecule_test_type", "brand",
    "dosage", "dosage_form", "unit_of_measure_per_pack", "line_item_quantity", "line_item_value", "pack_price", "unit_price",
    "manufacturing_site", "first_line_designation", "weight_kilograms", "freight_cost_usd", "line_item_insurance_usd",
]  # fmt: skip

USUAL = {
    "ID": "1", "Project Code": "100-CI-T01", "PQ #": "FPQ-1", "PO / SO #": "SCMS-4", "ASN/DN #": "ASN-8", "Country": "Côte d'Ivoire",
    "Managed By": "PMO - US", "Fulfill Via": "Direct Drop", "Vendor INCO Term": "EXW", "Shipment Mode": "Air",
    "PQ First Sent to Client Date": "3/19/10", "PO Sent to Vendor Date": "4/2/10", "Scheduled Delivery Date": "2-Jun-10",
    "Delivered to Client Date": "1-Jun-10", "Delivery Recorded Date": "1-Jun-10", "Product Group": "HRDT", "Sub Classification": "HIV test",
    "Vendor": "Orgenics, Ltd", "Item Description": "HIV, Reveal, 30 Tests", "Molecule/Test Type": "HIV, Reveal", "Brand": "Reveal",
    "Dosage": "N/A", "Dosage Form": "Test kit", "Unit of Measure (Per Pack)": "30", "Line Item Quantity": "19", "Line Item Value": "551.5",
    "Pack Price": "29", "Unit Price": "0.97", "Manufacturing Site": "Ranbaxy", "First Line Designation": "Yes", "Weight (Kilograms)": "13",
    "Freight Cost (USD)": "780.34", "Line Item Insurance (USD)": "",
}  # fmt: skip

# What an SCMS file may hold in the cells that matter, good and bad; the property tests draw from it.
ODD_CELLS = {
    "ID": ("1", "2", "3", "9999999", "10000000", "x", "", "-4"),
    "PO / SO #": ("SCMS-4", "SO-298", "", "P" * 200),
    "Country": ("Zambia", "Côte d'Ivoire", "", "N/A", "a\tb"),
    "Fulfill Via": ("From RDC", "Direct Drop", ""),
    "Vendor": ("SCMS from RDC", 'S. "BUYS", Ltd', "", "V" * 129),
    "PQ First Sent to Client Date": ("Pre-PQ Process", "Date Not Captured", "3/4/10", "03/04/2010", "13/13/10", ""),
    "PO Sent to Vendor Date": ("N/A - From RDC", "Date Not Captured", "12/14/10", ""),
    "Scheduled Delivery Date": ("2-Jun-06", "31-Feb-10", "2010-06-02", ""),
    "Delivered to Client Date": ("2-Jun-06", "1-Jul-2010", "", "Date Not Captured", "soon"),
    "Delivery Recorded Date": ("2-Jun-06", "5-Jul-10", "", "Date Not Captured"),
    "Line Item Quantity": ("19", "1,000", "12.5", "", "many"),
    "Line Item Value": ("551", "127,360.80", "", "0"),
    "Weight (Kilograms)": ("13", "0.5", "See ASN-93 (ID#:1281)", "Weight Captured Separately", "", "W" * 300),
    "Freight Cost (USD)": ("780.34", "See DN-304 (ID#:10589)", "Freight Included in Commodity Cost", "Invoiced Separately", "N/A"),
}


def line(*, end: bytes = b"\r", encoding: str = "utf-8", drop: tuple[str, ...] = (), **cells: str) -> bytes:
    """The usual row with some `cells` changed, named as in SHORT, and without the columns `drop`."""
    changed = USUAL | {SHORT[name]: value for name, value in cells.items()}
    return _csv_line([value for title, value in changed.items() if title not in drop], encoding) + end


def line_with(cells: dict[str, str]) -> bytes:
    """`line` for cells that a table of cases holds."""
    return raw_line({SHORT[name]: value for name, value in cells.items()})


SHORT = {
    "id": "ID", "order": "PO / SO #", "shipment": "ASN/DN #", "country": "Country", "office": "Managed By", "via": "Fulfill Via",
    "mode": "Shipment Mode", "quoted": "PQ First Sent to Client Date", "ordered": "PO Sent to Vendor Date",
    "promised": "Scheduled Delivery Date", "delivered": "Delivered to Client Date", "recorded": "Delivery Recorded Date",
    "vendor": "Vendor", "item": "Molecule/Test Type", "quantity": "Line Item Quantity", "value": "Line Item Value",
    "weight": "Weight (Kilograms)", "freight": "Freight Cost (USD)",
}  # fmt: skip


def header(*, end: bytes = b"\r", mark: bool = True, titles: list[str] = TITLES, drop: tuple[str, ...] = ()) -> bytes:
    """The first line, with the byte order mark of the original unless told otherwise."""
    return (b"\xef\xbb\xbf" if mark else b"") + _csv_line([title for title in titles if title not in drop], "utf-8") + end


def original(*rows: bytes) -> bytes:
    """A file as the publisher writes it: mark, header, rows, each ended by CR."""
    return header() + b"".join(rows)


def raw_line(cells: dict[str, str], end: bytes = b"\r") -> bytes:
    """A row from cells by their full titles."""
    return _csv_line([(USUAL | cells)[title] for title in TITLES], "utf-8") + end


def _csv_line(cells: list[str], encoding: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue().encode(encoding)
