"""Who is there: announcements over multicast DNS, fixed addresses, and addresses remembered."""
